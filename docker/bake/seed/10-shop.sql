-- The data that is baked: put your own here, in any form that the official image
-- reads.
CREATE TABLE customer (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL);
CREATE TABLE purchase (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int NOT NULL REFERENCES customer, cents int);
INSERT INTO customer (name) SELECT 'customer ' || i FROM generate_series(1, 20000) i;
INSERT INTO purchase (customer, cents) SELECT 1 + i % 20000, i FROM generate_series(1, 100000) i;
CREATE INDEX ON purchase (customer);
