"""What runs on the clock: the Celery app, its schedule, and tasks that carry ids and hold no rules."""
