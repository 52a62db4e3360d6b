"""Lets `python -m device_agent` stand in for `edgenas-agent`."""

from device_agent.cli.main import NAME, main

main(prog_name=NAME)
