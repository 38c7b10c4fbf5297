"""How many workers a load needs: from measurements only, by a queue that can be checked by hand."""

from __future__ import annotations

import heapq
import json
import random

import pytest
from typer.testing import CliRunner

from workers.capacity import CapacityError, Kind, Upload, p95_wait, read_bench, read_mix, wait_above, workers_needed
from workers.cli import app
from workers.forecast import CostModel

KIND = Kind("cpu, 1 thread", CostModel(base_seconds=1.0, per_second=0.01, per_megapixel=0.5, per_face=0.5), spread=0.1)
PHONE = Upload(0.9, 10.0, 480, 1.0)
LONG = Upload(0.1, 600.0, 1080, 2.0)


def report(tmp_path, *, drop: str = "", **detail):
    def spent(seconds: float, **more: float) -> dict[str, float]:
        return {"wall_seconds": seconds, "cpu_seconds": seconds, **more}

    body = {
        "cpus": 2,
        "threads": 1,
        "by_length": {"10 s": spent(1.9), "30 s": spent(2.1), "2 min": spent(3.0), "10 min": spent(7.8)},
        "by_size": {"480p": spent(1.2), "720p": spent(1.4), "1080p": spent(1.9)},
        "by_faces": {
            "1": spent(1.84, found_per_frame=1.0),
            "5": spent(3.84, found_per_frame=5.0),
            "20": spent(11.34, found_per_frame=20.0),
        },
        **detail,
    }
    body.pop(drop, None)
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"rows": [], "detail": body}))
    return path


def mix(tmp_path, text="share,duration_seconds,height,num_faces\n0.9,10,480,1\n0.1,600,1080,2\n"):
    path = tmp_path / "mix.csv"
    path.write_text(text)
    return path


def test_waiting_is_that_of_a_queue_that_can_be_worked_out_by_hand():
    # one server: Erlang C is the load itself; two at load 1: 1/3
    assert wait_above(1, load=0.6, service_seconds=2.0, limit_seconds=0.0) == pytest.approx(0.6)
    assert wait_above(2, load=1.0, service_seconds=2.0, limit_seconds=0.0) == pytest.approx(1 / 3)
    assert wait_above(2, load=1.0, service_seconds=2.0, limit_seconds=2.0) == pytest.approx(1 / 3 * 2.718281828**-1)
    assert p95_wait(1, load=0.6, service_seconds=2.0) == pytest.approx(2.0 / 0.4 * 2.4849066)
    assert p95_wait(50, load=10.0, service_seconds=2.0) == 0.0


def test_waiting_agrees_with_a_simulation_of_the_same_queue():
    rng, servers, service, load = random.Random(5), 4, 3.0, 3.2
    free, now, waits = [0.0] * servers, 0.0, []
    for _ in range(200_000):
        now += rng.expovariate(load / service)
        start = max(now, heapq.heappop(free))
        heapq.heappush(free, start + rng.expovariate(1 / service))
        waits.append(start - now)
    assert sorted(waits)[int(0.95 * len(waits))] == pytest.approx(p95_wait(servers, load=load, service_seconds=service), rel=0.1)


def test_the_pool_is_the_smallest_that_stays_below_the_planned_use():
    need = workers_needed(KIND, [PHONE, LONG], uploads_per_hour=3600, slo_seconds=300, utilisation=0.7)
    mean = 0.9 * KIND.seconds(PHONE) + 0.1 * KIND.seconds(LONG)
    assert need.seconds_per_video == pytest.approx(mean)
    assert need.num_workers == -(-mean // 0.7)
    assert need.utilisation <= 0.7 < mean / (need.num_workers - 1)


def test_a_short_promise_needs_more_workers_than_the_use_alone():
    slow = KIND.seconds(LONG)
    alone = workers_needed(KIND, [LONG], uploads_per_hour=600, slo_seconds=300, utilisation=0.95)
    pressed = workers_needed(KIND, [LONG], uploads_per_hour=600, slo_seconds=slow + 1.0, utilisation=0.95)
    assert pressed.num_workers > alone.num_workers
    assert pressed.p95_seconds <= slow + 1.0
    with pytest.raises(CapacityError, match="of work alone"):
        workers_needed(KIND, [LONG], uploads_per_hour=600, slo_seconds=slow, utilisation=0.7)


def test_a_report_of_the_bench_becomes_a_kind_of_worker(tmp_path):
    kind = read_bench(report(tmp_path, device="cuda:0"))
    assert kind.name == "cuda:0, 1 thread"
    assert kind.seconds(Upload(1, 4.0, 1080, 5.0)) == pytest.approx(3.84, rel=0.1)
    assert kind.spread < 0.1


def test_what_is_missing_is_said_with_what_to_do(tmp_path):
    with pytest.raises(CapacityError, match="run `veriframe bench`"):
        read_bench(tmp_path / "none.json")
    with pytest.raises(CapacityError, match=r"to its end"):
        read_bench(report(tmp_path, drop="by_faces"))
    with pytest.raises(CapacityError, match=r"share,duration_seconds,height,num_faces"):
        read_mix(tmp_path / "none.csv")
    for text in (
        "share,duration_seconds\n1,2\n",
        "share,duration_seconds,height,num_faces\n",
        "share,duration_seconds,height,num_faces\n1,x,2,1\n",
    ):
        with pytest.raises(CapacityError, match="share,duration_seconds,height,num_faces"):
            read_mix(mix(tmp_path, text))
    with pytest.raises(CapacityError, match="positive"):
        read_mix(mix(tmp_path, "share,duration_seconds,height,num_faces\n1,-2,480,1\n"))


def test_the_command_answers_and_refuses(tmp_path):
    arguments = ["capacity", "--uploads-per-hour", "3600", "--mix", str(mix(tmp_path))]
    done = CliRunner().invoke(app, [*arguments, "--bench", str(report(tmp_path))], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "cpu, 1 thread" in done.output
    refused = CliRunner().invoke(app, [*arguments, "--bench", str(tmp_path / "none.json")])
    assert isinstance(refused.exception, CapacityError)


def test_a_mix_that_excel_wrote_is_read(tmp_path):
    path = mix(tmp_path)
    plain = read_mix(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_mix(path) == plain
