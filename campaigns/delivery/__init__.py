"""From a launched activity to an accounted send."""
