"""Audit a level: one line a check with what was expected and what was seen.

python -m common.audit                     # every level
python -m common.audit 3 --offline         # one level; options are those of its run.py
"""

from common import cli, levels
from common.config import load_config
from common.utils.errors import UserError


def main() -> None:
    """Audit the named level, or all; status 1 where a check fails."""
    parser = cli.Parser("audit", __doc__, "[LEVEL] [options of a level]")
    named, _, options = parser.parse_before_levels()
    if len(named) > 1:
        raise UserError("command line: name one level, or none for all")
    found = [levels.find_level(*named)] if named else levels.find_levels()
    configs = [load_config(level / "config.yaml", options, parser.prog) for level in found]

    from common.audit.context import AuditContext
    from common.audit.runner import AuditFailed, find_bugs
    from common.data import load_splits
    from common.models import input_size
    from common.runtime import start_runtime

    failed = 0
    both = "build_network", "main"
    functions = [[levels.load_function(level, name) for name in both] for level in found]
    for level, config, (build_network, main) in zip(found, configs, functions, strict=True):
        data = load_splits(config.data, input_size(config.network))
        runtime = start_runtime(config.train, config.fast)
        context = AuditContext(config, build_network, data, runtime, main)
        findings = find_bugs(context)
        print(f"\n{level.name} on {data.title}")
        for finding in findings:
            print(finding.line())
        failed += sum(not finding.passed for finding in findings)
    if failed:
        raise AuditFailed(f"{failed} checks failed")


if __name__ == "__main__":
    cli.command(main)
