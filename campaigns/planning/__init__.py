"""Campaigns and the activities that they group."""
