"""What apply would do, decided from the site, the survey and the bundle; pure, touches nothing."""

from holdfast_installer.plan.making import make_plan
from holdfast_installer.plan.model import Plan

__all__ = ["Plan", "make_plan"]
