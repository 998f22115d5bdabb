"""Slow tests, the proofs, run only when asked for: `make proof`, or pytest --run-slow."""


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow alone")


def pytest_collection_modifyitems(config, items):
    slow = config.getoption("--run-slow")
    left_out = [item for item in items if bool(item.get_closest_marker("slow")) != slow]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
