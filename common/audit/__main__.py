"""Audit a level: one line a check with what was expected and what was seen.

python -m common.audit                     # every level
python -m common.audit 3 --offline         # one level; options are those of its run.py
"""

import sys

from common import cli, levels
from common.audit.context import AuditContext
from common.audit.runner import AuditFailed, find_bugs
from common.config import load_config
from common.data import load_splits
from common.models import input_size
from common.runtime import start_runtime


def main() -> None:
    """Audit the named level, or all; status 1 where a check fails."""
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):
        found = [levels.find_level(arguments.pop(0))]
    else:
        found = levels.find_levels()
    failed = 0
    prog = "python -m common.audit LEVEL"
    configs = [load_config(level / "config.yaml", arguments, prog) for level in found]
    for level, config in zip(found, configs, strict=True):
        data = load_splits(config.data, input_size(config.network))
        build_network = levels.load_module(level).build_network
        context = AuditContext(
            config, build_network, data, start_runtime(config.train, config.fast)
        )
        findings = find_bugs(context)
        print(f"\n{level.name} on {data.title}")
        for finding in findings:
            print(finding.line())
        failed += sum(not finding.passed for finding in findings)
    if failed:
        raise AuditFailed(f"{failed} checks failed")


if __name__ == "__main__":
    cli.command(main)
