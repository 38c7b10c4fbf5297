"""Schema-driven requests against the API, the same for the same seed: no 5xx, no untyped refusal, nothing beside its contract.

Runs as a program of its own (`python api_fuzz.py EXAMPLES SEED`): Hypothesis draws from the constants of whatever is imported.
"""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
_KEY = "a key of this program"


def run_fuzz(*, examples: int, seed: int = 0, timeout_seconds: float = 1800.0) -> dict[str, Any]:
    """Fuzz in a fresh process; gives `{requests, statuses, failures}`."""
    done = subprocess.run(
        [sys.executable, str(HERE), str(examples), str(seed)],
        capture_output=True,
        timeout=timeout_seconds,
        check=False,
        cwd=HERE.parents[2],
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode(errors="replace")[-2000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def fuzz(*, examples: int, seed: int) -> dict[str, Any]:
    """Every operation, with data that fits its schema and with data that does not."""
    import hypothesis
    import schemathesis
    from hypothesis import HealthCheck, Phase
    from hypothesis.errors import Unsatisfiable
    from schemathesis import GenerationMode

    from api_caller import make_caller
    from verdict_builders import put_verdict
    from workers.ledger import Ledger

    ledger = Ledger.in_memory()
    put_verdict(ledger, "0")
    digest = hashlib.sha256(_KEY.encode()).hexdigest()
    caller = make_caller(ledger, api_keys=(f"admin:{digest}",), web_secret="a session secret for tests, 32 characters")
    schema = schemathesis.openapi.from_asgi("/openapi.json", caller.app)
    statuses: Counter[str] = Counter()
    failures: list[str] = []

    def try_one(case: schemathesis.Case) -> None:
        try:
            answer = case.call(headers={"X-API-Key": _KEY})  # it is also checked that no other key and none does as well
        except Exception as err:  # what the application let through
            failures.append(
                f"{case.method} {case.path}: {type(err).__name__} {err!s:.200} for {case.path_parameters!r:.200} {case.query!r:.200}"
            )
            return
        statuses[str(answer.status_code)] += 1
        label = f"{case.method} {case.path} -> {answer.status_code}"
        if answer.status_code >= 400 and set(answer.json()) != {"code", "message", "retryable"}:
            failures.append(f"{label}: untyped refusal")
        if answer.status_code >= 500:
            failures.append(f"{label}: {case.body!r:.300} {case.path_parameters!r:.200} {case.query!r:.200}")
        try:
            case.validate_response(answer, excluded_checks=[schemathesis.checks.CHECKS.get_one("positive_data_acceptance")])
        except schemathesis.errors.SchemathesisError as err:
            failures.append(f"{label}: {err!s:.300}")
        except BaseExceptionGroup as err:
            failures.append(f"{label}: {err.exceptions!s:.300}")

    for number, found in enumerate(schema.get_all_operations()):
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            run = hypothesis.given(case=operation.as_strategy(generation_mode=mode))(try_one)
            run = hypothesis.settings(
                max_examples=examples, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
            )(run)
            try:
                hypothesis.seed(seed * 1000 + number)(run)()
            except Unsatisfiable:
                continue  # an operation without parameters has no data that does not fit
    ledger.close()
    return {"requests": sum(statuses.values()), "statuses": dict(statuses), "failures": sorted(set(failures))}


if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]
    logging.disable(logging.CRITICAL)
    print(json.dumps(fuzz(examples=int(sys.argv[1]), seed=int(sys.argv[2]))))
