"""Background work: the Celery app, its schedule, and tasks that take ids and contain no rules."""
