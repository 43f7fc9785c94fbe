# The example's tests.  Each begins with SELECT testenv_restore(): each creates
# "the first" order, so that a test that finds what another one left fails,
# whatever the order in which they run.
import json
import os
import unittest
import urllib.error
import urllib.request

import psycopg2

SERVICE = os.environ.get("SERVICE", "http://service:8080")
SEEDED = 1000


def call(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(SERVICE + path, data), timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


class ServiceTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.database = psycopg2.connect("")
        # a restore must not be left in an open transaction
        cls.database.autocommit = True

    @classmethod
    def tearDownClass(cls):
        cls.database.close()

    def setUp(self):
        self.execute("SELECT testenv_restore()")

    def execute(self, sql):
        with self.database.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else None

    def test_seeded(self):
        status, orders = call("/orders")
        self.assertEqual(status, 200)
        self.assertEqual([order["id"] for order in orders], list(range(1, SEEDED + 1)))

    def test_order_gets_the_next_id(self):
        status, order = call("/orders", {"customer": 7, "item": "tea", "cents": 350})
        self.assertEqual((status, order["id"]), (201, SEEDED + 1))

    def test_order_gets_the_next_id_again(self):
        status, order = call("/orders", {"customer": 8, "item": "coffee", "cents": 420})
        self.assertEqual((status, order["id"]), (201, SEEDED + 1))

    def test_unknown_customer(self):
        status, answer = call("/orders", {"customer": SEEDED + 1, "item": "tea", "cents": 350})
        self.assertEqual(status, 422)
        self.assertIn("orders_customer_fkey", answer["error"])

    def test_refused_price(self):
        status, answer = call("/orders", {"customer": 1, "item": "tea", "cents": 0})
        self.assertEqual(status, 422)
        self.assertIn("orders_cents_check", answer["error"])

    def test_service_without_customers(self):
        self.execute("DELETE FROM customer")
        self.assertEqual(call("/customers"), (200, []))
        self.assertEqual(call("/orders"), (200, []))

    def test_customers(self):
        status, customers = call("/customers")
        self.assertEqual((status, len(customers)), (200, SEEDED))

    def test_shared_data(self):
        self.execute("UPDATE country SET name = upper(name)")
        self.assertEqual(self.execute("SELECT name FROM country WHERE code = 'de'"), [("GERMANY",)])

    def test_shared_data_is_back(self):
        self.assertEqual(self.execute("SELECT name FROM country WHERE code = 'de'"), [("Germany",)])


if __name__ == "__main__":
    unittest.main(verbosity=2)
