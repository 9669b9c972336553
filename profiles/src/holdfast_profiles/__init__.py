"""Profiles as data: hardware, jurisdiction, level, compliance and policy."""
