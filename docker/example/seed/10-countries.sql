-- What the database server loads by itself at its first start: data that every
-- service of this database shares.
CREATE TABLE country (code char(2) PRIMARY KEY, name text NOT NULL);
INSERT INTO country VALUES ('de', 'Germany'), ('fr', 'France'), ('jp', 'Japan'), ('pl', 'Poland');
