CREATE TABLE orders (
	id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	customer int NOT NULL REFERENCES customer ON DELETE CASCADE,
	item text NOT NULL,
	cents int NOT NULL CHECK (cents > 0)
);
CREATE INDEX orders_customer ON orders (customer);
