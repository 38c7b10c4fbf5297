"""Makers of the derived files of deploy/."""
