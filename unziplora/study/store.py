"""Answers in SQLite: participants by a random token, no names, no addresses."""

from __future__ import annotations

import csv
import io
import json
import math
import secrets
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from unziplora.errors import InvalidInput
from unziplora.study.trials import Question, Side, Trial, trials_for

_TABLES = """
create table if not exists participants (token text primary key, seed integer not null);
create table if not exists answers (
  token text not null references participants, trial integer not null, question text not null,
  name text not null, left text not null, right text not null, side text not null,
  expected text, primary key (token, trial, question)
);
create table if not exists settings (key text primary key, value text not null);
"""
_Z = 1.959964  # 95 %
MOST_WRONG_CHECKS = 1 / 3  # beyond this share a participant's answers are left out


@dataclass(frozen=True)
class Preference:
    """How often the first of two methods was preferred: share of n answers, with Wilson's 95 %
    interval."""

    first: str
    second: str
    question: str
    share: float
    low: float
    high: float
    n: int


class Store:
    """One study's file. Safe for threads and processes: each call has its own connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with self._open() as database:
                database.executescript(_TABLES)
        except sqlite3.DatabaseError as error:
            raise InvalidInput(
                f"{path.name} cannot be used for answers ({error}). Name another with --answers."
            ) from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self._path, timeout=30)
        try:
            with database:
                yield database
        finally:
            database.close()

    def key(self) -> str:
        """The organiser's key; the same whenever the study is started again."""
        with self._open() as database:
            database.execute(
                "insert or ignore into settings values ('key', ?)", (secrets.token_urlsafe(16),)
            )
            row = database.execute("select value from settings where key = 'key'").fetchone()
        return str(row[0])

    def keep_comparison(
        self, names: Sequence[str], methods: Sequence[str]
    ) -> tuple[list[str], list[str]]:
        """The images and methods of this study, in its order: those given, where nobody has
        answered yet. Raises InvalidInput where the answers are of others."""
        with self._open() as database:
            database.execute("begin immediate")
            kept = _comparison(database, names, methods)
            if kept is None:
                raise InvalidInput(
                    f"The answers in {self._path.name} are of other images or methods than the "
                    "folders have now. Name another file with --answers, or start the study with "
                    "the folders as they were."
                )
            database.execute(
                "insert or replace into settings values ('comparison', ?)", (json.dumps(kept),)
            )
        return kept

    def invite(self, count: int) -> list[str]:
        """Tokens of at least so many participants, those of earlier starts first."""
        with self._open() as database:
            there = [
                row[0] for row in database.execute("select token from participants order by rowid")
            ]
            for _ in range(count - len(there)):
                token = secrets.token_urlsafe(12)
                database.execute(
                    "insert into participants values (?, ?)", (token, secrets.randbits(31))
                )
                there.append(token)
        return there

    def seed(self, token: str) -> int | None:
        """A participant's order of trials, or None for an unknown token."""
        with self._open() as database:
            row = database.execute(
                "select seed from participants where token = ?", (token,)
            ).fetchone()
        return None if row is None else int(row[0])

    def answered(self, token: str) -> set[tuple[int, str]]:
        with self._open() as database:
            found = database.execute(
                "select trial, question from answers where token = ?", (token,)
            )
            return {(int(trial), str(question)) for trial, question in found}

    def answer(self, token: str, trial: Trial, question: Question, side: Side) -> None:
        """Keeps an answer; the last one for a question counts."""
        row = (
            token, trial.number, question, trial.name, trial.left[0], trial.right[0], side,
            trial.expected,
        )  # fmt: skip
        with self._open() as database:
            database.execute("insert or replace into answers values (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def preferences(self) -> list[Preference]:
        """By pair of methods and question, of participants who passed their checks."""
        wins: dict[tuple[str, str, str], int] = defaultdict(int)
        counts: dict[tuple[str, str, str], int] = defaultdict(int)
        left_out = self.inattentive()
        for token, question, left, right, side, expected in self._rows():
            if expected is not None or token in left_out:
                continue
            first, second = sorted((left, right))
            counts[first, second, question] += 1
            wins[first, second, question] += (left if side == "left" else right) == first
        return [
            Preference(*key, wins[key] / n, *wilson(wins[key], n), n)
            for key, n in sorted(counts.items())
        ]

    def inattentive(self) -> set[str]:
        """Participants with more than a third of their checks wrong."""
        checks: Mapping[str, list[bool]] = defaultdict(list)
        for token, _, _, _, side, expected in self._rows():
            if expected is not None:
                checks[token].append(side != expected)
        return {t for t, wrong in checks.items() if sum(wrong) > MOST_WRONG_CHECKS * len(wrong)}

    def participants(self) -> int:
        """How many have answered anything."""
        return len({row[0] for row in self._rows()})

    def _rows(self) -> list[tuple[str, str, str, str, str, str | None]]:
        with self._open() as database:
            return database.execute(
                "select token, question, left, right, side, expected from answers"
            ).fetchall()

    def as_csv(self) -> str:
        """Every answer; participants by number."""
        with self._open() as database:
            rows = database.execute(
                "select participants.rowid, trial, question, name, left, right, side, expected "
                "from answers join participants using (token) order by 1, 2, 3"
            ).fetchall()
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(
            ["participant", "trial", "question", "image", "left", "right", "side", "expected"]
        )
        writer.writerows(rows)
        return text.getvalue()


def _comparison(
    database: sqlite3.Connection, names: Sequence[str], methods: Sequence[str]
) -> tuple[list[str], list[str]] | None:
    """What the answers are of, or, where there are none, what is given; None where they differ."""
    given = (list(names), list(methods))
    if database.execute("select 1 from answers limit 1").fetchone() is None:
        return given
    row = database.execute("select value from settings where key = 'comparison'").fetchone()
    if row is None:  # answers of a version that did not keep it
        return given if _fits(database, *given) else None
    kept_names, kept_methods = json.loads(row[0])
    same = sorted(kept_names) == sorted(names) and sorted(kept_methods) == sorted(methods)
    return (kept_names, kept_methods) if same else None


def _fits(database: sqlite3.Connection, names: Sequence[str], methods: Sequence[str]) -> bool:
    """Whether each answer is of the trial that these names and methods give for its number."""
    answers = defaultdict(set)
    for token, seed, *shown in database.execute(
        "select token, seed, trial, name, left, right from answers join participants using (token)"
    ):
        answers[token, seed].add(tuple(shown))
    return all(
        shown
        <= {(t.number, t.name, t.left[0], t.right[0]) for t in trials_for(names, methods, seed)}
        for (_, seed), shown in answers.items()
    )


def wilson(wins: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927)."""
    share = wins / n
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)
