# The Django application whose tables the bench seeds.
