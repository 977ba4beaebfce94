"""`unziplora study`: a blind comparison of methods in participants' browsers."""

from __future__ import annotations

import argparse
from pathlib import Path

from unziplora.cli.numbers import count, port
from unziplora.errors import InvalidInput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "folders",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="one method's results each, as `unziplora batch --samples` leaves them",
    )
    add("--participants", type=count, default=10, metavar="N", help="how many links (10)")
    add("--answers", type=Path, default=Path("study.sqlite"), metavar="FILE")
    add("--address", default="127.0.0.1", help="0.0.0.0: the whole network")
    add("--port", type=port, default=7861)


def study(arguments: argparse.Namespace) -> int:
    """Prints a link for each participant and the organiser's, and serves until Ctrl-C."""
    from unziplora.study.trials import QUESTIONS, open_results, shared_names, trials_for

    if not 1 <= arguments.participants <= 10_000:
        raise InvalidInput("So many participants cannot take part. Choose 1 to 10000.")
    results = open_results(arguments.folders)
    try:
        import uvicorn

        from unziplora.app.serving import IDLE_SECONDS, limited, listen, most_connections
        from unziplora.study.server import make_study
        from unziplora.study.store import Store
    except ImportError as error:
        raise InvalidInput(
            f"The package {error.name} is missing, which the study needs. "
            "Install it with: pip install 'unziplora[app]'"
        ) from error
    store = Store(arguments.answers)
    app = make_study(results, store)
    listening = listen(arguments.address, arguments.port)
    server = f"http://{_shown(arguments.address)}:{listening.getsockname()[1]}"
    trials = trials_for(shared_names(results), [result.method for result in results], 0)
    questions = len(trials) * len(QUESTIONS)
    print(f"{len(results)} methods, {questions} questions for each participant. Their links:")
    for token in store.invite(arguments.participants):
        print(f"  {server}/p/{token}")
    print(f"Results (for you alone): {server}/results/{store.key()}", flush=True)
    config = uvicorn.Config(
        app,
        http=limited(most_connections()),
        ws="none",
        log_level="error",
        timeout_keep_alive=round(IDLE_SECONDS),
    )
    uvicorn.Server(config).run(sockets=[listening])
    return 0


def _shown(address: str) -> str:
    if address in ("0.0.0.0", "::"):
        import socket

        return socket.gethostname()
    return f"[{address}]" if ":" in address else address
