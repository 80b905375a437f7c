import psutil

from core.runs.machine import describe


def test_the_machine_is_described_without_torch():
    machine = describe("cpu")
    assert machine["cpu"]
    assert 1 <= machine["cores"] <= psutil.cpu_count()
    assert 0 < machine["memory_bytes"] <= psutil.virtual_memory().total
    assert machine["versions"]["torch"].startswith("2.")
