"""What Prometheus reads, in its format, and never who asked."""

from __future__ import annotations

import re

from metering_parts import closing, opening

from holdfast_gateway.metering import exposition
from holdfast_gateway.metering.exposition import Counter, Gauge, Histogram
from holdfast_gateway.metering.meters import Meters


def values(text: str) -> dict[str, float]:
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def test_a_request_is_counted_by_model_team_and_end() -> None:
    meters = Meters()
    ended = closing(ttft_ms=250.0, itl_ms=12.0, queue_ms=0.0)
    meters.ended(opening(), ended, hedged=True, resumed=False)
    meters.ended(
        opening(),
        closing(completion_tokens=None, state="error", status=502),
        hedged=False,
        resumed=True,
    )
    found = values(meters.text())
    of = 'model="org/model",team="research"'
    assert found[f'holdfast_gateway_requests_total{{{of},state="done",status="200"}}'] == 1
    assert found[f'holdfast_gateway_requests_total{{{of},state="error",status="502"}}'] == 1
    assert found[f'holdfast_gateway_tokens_total{{{of},kind="prompt"}}'] == 14
    assert found[f'holdfast_gateway_tokens_total{{{of},kind="cached"}}'] == 8
    assert found[f'holdfast_gateway_tokens_total{{{of},kind="completion"}}'] == 5
    assert found['holdfast_gateway_uncounted_requests_total{model="org/model"}'] == 1
    assert found['holdfast_gateway_hedged_total{model="org/model"}'] == 1
    assert found['holdfast_gateway_resumed_total{model="org/model"}'] == 1
    name = "holdfast_gateway_time_to_first_token_seconds"
    assert found[f'{name}_bucket{{model="org/model",le="0.2"}}'] == 0
    assert found[f'{name}_bucket{{model="org/model",le="0.3"}}'] == 1
    assert found[f'{name}_bucket{{model="org/model",le="+Inf"}}'] == 1
    assert found[f'{name}_sum{{model="org/model"}}'] == 0.25


def test_refusals_are_counted_by_code_and_made_up_models_not_at_all() -> None:
    meters = Meters()
    refused = closing(state="refused", status=429, error_code="budget_exceeded")
    meters.ended(opening(), refused, hedged=False, resumed=False)
    for at in range(50):
        stranger = opening(model=f"made/up-{at}", allowed=False)
        meters.ended(stranger, closing(state="refused", status=404), hedged=False, resumed=False)
    name = "holdfast_gateway_refused_total"
    found = {line: each for line, each in values(meters.text()).items() if name in line}
    assert found == {
        f'{name}{{model="org/model",code="budget_exceeded"}}': 1,
        f'{name}{{model="",code="404"}}': 50,
    }


def test_nothing_says_who_asked() -> None:
    meters = Meters()
    who = opening(principal="bob", owner="carol", token="tok9", session="s9", request_id="req_9")
    meters.ended(who, closing(ttft_ms=1.0), hedged=False, resumed=False)
    assert not re.search("bob|carol|tok9|s9|req_9", meters.text())


def test_no_label_grows_without_end() -> None:
    counter = Counter("c", "Text.", ("x",))
    histogram = Histogram("h", "Text.", ("x",), (1, 2))
    for at in range(3000):
        counter.add((str(at),))
        histogram.observe((str(at),), 1.5)
    lines = list(counter.lines())
    assert len(lines) == 2 + exposition._MOST_SERIES + 1
    assert 'c{x="other"} 2000' in lines
    assert 'h_bucket{x="other",le="2"} 2000' in list(histogram.lines())


def test_the_text_format() -> None:
    counter = Counter("c_total", "Text.", ("x",))
    counter.add(('say "\\\n"',), 2.5)
    assert list(counter.lines()) == [
        "# HELP c_total Text.",
        "# TYPE c_total counter",
        'c_total{x="say \\"\\\\\\n\\""} 2.5',
    ]
    assert list(Gauge("g", "Text.", lambda: 3).lines())[-1] == "g 3"
    histogram = Histogram("h", "Text.", (), (0.1, 1))
    for value in (0.1, 0.5, 7):
        histogram.observe((), value)
    assert list(histogram.lines())[2:] == [
        'h_bucket{le="0.1"} 1',
        'h_bucket{le="1"} 2',
        'h_bucket{le="+Inf"} 3',
        "h_sum 7.6",
        "h_count 3",
    ]
