"""Run holdfast-gateway as `python -m holdfast_gateway`."""

from holdfast_gateway.cli import main

main()
