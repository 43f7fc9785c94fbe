# Empty, but there: Django serializes the rows only of applications with migrations.
