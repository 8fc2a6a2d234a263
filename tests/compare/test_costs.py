"""What a request costs: clocks and counters summed over restarts, prices and savings from them."""

import pytest

from emberline.compare.assess import assess
from emberline.compare.costs import Usage, costs_of, read_usage, saving_text, spent_text, with_costs, write_usage
from emberline.compare.observe import observe


def test_clocks_and_counters_are_summed_over_restarts_and_loading_is_no_requests_cost():
    usage = Usage.begin("v", {"int8/1-5": 30.0, "fp32/2-5": 40.0}, {"int8": 1000, "fp32": 5000, "fp32#1": 10}, {})
    usage = usage.read({"int8/1-5": 31.0, "fp32/2-5": 44.0}, {"int8": 1200, "fp32": 5300, "fp32#1": 110}, {})
    # a worker died and another one loaded the model; the router's first process began anew
    usage = usage.read({"int8/9-7": 25.0, "fp32/2-5": 45.0}, {"int8": 50, "fp32": 20, "fp32#1": 160}, {})
    usage = usage.read({"int8/9-7": 25.5, "fp32/2-5": 45.0}, {"int8": 50, "fp32": 20, "fp32#1": 160}, {})
    assert usage.cpu_s == pytest.approx({"int8": 1.5, "fp32": 5.0})
    assert usage.requests == {"int8": 250, "fp32": 300 + 100 + 20 + 50}


def test_prices_savings_and_accuracy_for_money_follow(made, traffic, tmp_path):
    running = made.in_step(2, price={"cpu_hour": 0.036})
    traffic.send(running, 400, correct=(0.9, 0.9))
    usage = Usage(
        config_version=running.config_version,
        clocks={},
        counters={},
        cpu_s={"int8": 1.0, "fp32": 4.0},
        requests={"int8": 1000, "fp32": 1000},
    )
    write_usage(tmp_path, running.name, usage)
    look = with_costs(assess(running, observe(running, traffic.data), 1100.0), running, read_usage(tmp_path, running))
    treatment, control = look.costs
    assert (treatment.cpu_ms, control.cpu_ms) == (1.0, 4.0)
    assert treatment.price_per_million == pytest.approx(1.0 / 1000 / 3600 * 0.036 * 1e6)
    assert treatment.value_per_price == pytest.approx(look.metrics[0].treatment / treatment.price_per_million * 1e6)
    assert saving_text(look.costs) == "int8 would save 75% of the processor time, 0.03 a million requests"
    assert saving_text(look.costs[::-1]).startswith("fp32 would cost more: 300%")
    assert with_costs(look, running, None).costs == ()
    stepped = made.in_step(1, price={"cpu_hour": 0.036})
    assert read_usage(tmp_path, stepped) is None, "another step's numbers are not this one's"


def test_gpu_time_counts_over_a_restart_of_what_reads_it_and_has_a_price_of_its_own(made):
    cpu, before, after = {"int8/1-5": 9.0, "fp32/2-5": 9.0}, {"int8": 0, "fp32": 0}, {"int8": 1000, "fp32": 1000}
    usage = Usage.begin("v", cpu, before, {"int8/1-5": 5.0, "fp32/2-5": 7.0})
    usage = usage.read(cpu, before, {"int8/1-5": 6.0, "fp32/2-5": 10.0})
    usage = usage.read(cpu, after, {"int8/1-5": 0.0, "fp32/2-5": 0.0})  # rollout began anew, and so did its clocks
    usage = usage.read(cpu, after, {"int8/1-5": 1.0, "fp32/2-5": 1.0})
    treatment, control = costs_of(made.in_step(2, price={"cpu_hour": 0.036, "gpu_hour": 3.6}), usage, None)
    assert (treatment.gpu_ms, control.gpu_ms) == (2.0, 4.0)
    assert (treatment.price_per_million, control.price_per_million) == pytest.approx((2.0, 4.0))
    assert spent_text(control) == "0 ms of processor time and 4 ms of GPU time a request"
    (unpriced, _) = costs_of(made.in_step(2, price={"cpu_hour": 0.036}), usage, None)
    assert unpriced.price_per_million is None, "a processor's price alone would be less than it costs"


def test_a_driver_that_does_not_tell_leaves_no_price(made):
    cpu, counters = {"int8/1-5": 9.0, "fp32/2-5": 9.0}, {"int8": 1000, "fp32": 1000}
    usage = Usage.begin("v", cpu, {"int8": 0, "fp32": 0}, {"int8/1-5": 5.0}).read(cpu, counters, None)
    usage = usage.read(cpu, counters, {"int8/1-5": 8.0})
    for cost in costs_of(made.in_step(2, price={"cpu_hour": 0.036, "gpu_hour": 3.6}), usage, None):
        assert (cost.gpu_ms, cost.price_per_million) == (None, None)


def test_savings_name_both_processors(made):
    usage = Usage(
        config_version="v",
        clocks={},
        counters={},
        cpu_s={"int8": 1.0, "fp32": 2.0},
        gpu_s={"int8": 1.0, "fp32": 4.0},
        requests={"int8": 1000, "fp32": 1000},
    )
    costs = costs_of(made.in_step(2), usage, None)
    assert saving_text(costs) == "int8 would save 50% of the processor time, 75% less of the GPU's"
