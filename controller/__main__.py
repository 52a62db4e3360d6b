"""Starts the `edgenas` command, where its libraries are installed: a board has the agent's alone."""

import os
import sys


def main() -> None:
    """Run the command.

    Raises:
        SystemExit: With 2 where the host's libraries are missing.
    """
    # What gRPC says of a connection that fails stands in the error that the command ends with.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        from controller.cli.main import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("controller", "edgenas"):
            raise
        print(  # noqa: T201
            f"edgenas: {error.name} is missing, so this is an installation for boards; "
            "install the host with pip install 'edgenas[host]', or use edgenas-agent",
            file=sys.stderr,
        )
        raise SystemExit(2) from error
    run()


if __name__ == "__main__":
    main()
