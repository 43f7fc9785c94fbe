# A model for each table, as an application with this schema would have.
from django.conf import settings
from django.db import models


def make_models(count):
    before = None
    for number in range(1, count + 1):
        name = f"t_{number:05d}"
        if before and (number - 1) % 5:
            parent = models.ForeignKey(before, models.CASCADE, db_column="parent", related_name="+")
        else:
            parent = models.IntegerField()
        before = type(name.upper(), (models.Model,), {
            "__module__": __name__, "Meta": type("Meta", (), {"app_label": "seeded", "db_table": name}), "parent": parent,
            "name": models.TextField(), "value": models.IntegerField(), "created": models.DateTimeField(), "body": models.TextField()})


make_models(settings.SEEDED_TABLES)
