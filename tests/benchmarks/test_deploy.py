"""What shipping costs: every number is there and the exit code follows the contracts; no time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import deploy
from benchmarks.deploy import Contract
from convc.cli.exits import BUG


def test_every_cost_is_measured(
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deploy, "_LAYERS", (1, 2))
    monkeypatch.setattr(deploy, "_CALLS", 20)
    monkeypatch.setattr(deploy, "_LOADS", 3)
    code = deploy.main(["--model", str(tiny), "--rounds", "1", "--json", str(tmp_path / "f.json")])
    document = json.loads((tmp_path / "f.json").read_text())
    contracts = document["contracts"].values()
    assert code == (0 if all(c["kept"] for c in contracts) else BUG)
    assert [c["kept"] for c in contracts] == [c["found"] <= c["limit"] for c in contracts]
    runs = [c for c in document["costs"] if not c["what"].startswith("    ")]
    assert len(runs) == 3
    assert all(0 < c[side] < 10 for c in runs for side in ("libconvc", "python"))
    assert document["runtime_bytes"]["libconvc"] < 200_000
    printed = capsys.readouterr().out
    assert printed.count("kept  ") + printed.count("BROKEN") == len(contracts)


def test_a_broken_contract_says_both_numbers() -> None:
    assert Contract("loading", 0.15, 0.2).line() == "BROKEN  loading: 200.00 ms of 150.00 ms"
    assert not Contract("loading", 0.15, 0.2).kept
