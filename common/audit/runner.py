"""The audit: behavioural checks that find the bugs that training code has."""

import gc
import logging
import time
from dataclasses import replace

import torch
from tqdm import tqdm

from common.audit import augment, data, evaluation, level, network, optimizer, training
from common.audit.context import AuditContext, Check, Finding
from common.utils.errors import UserError

log = logging.getLogger("rungs")

# in the order in which one would look: what goes in, what comes out, what training does to it
CHECKS: list[Check] = [
    function
    for module in (data, augment, network, optimizer, training, evaluation, level)
    for function in vars(module).values()
    if hasattr(function, "check")
]


class AuditFailed(UserError):
    """At least one check failed."""

    status = 1


def find_bugs(context: AuditContext, only: list[str] | None = None) -> list[Finding]:
    """Run the checks (or those with the given names) and return what each found.

    What is drawn later is the same with and without an audit.
    """
    heard, device = log.level, context.runtime.device
    findings: list[Finding] = []
    log.setLevel(logging.ERROR)  # of the tiny runs inside, nobody wants to hear
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            chosen = [check for check in CHECKS if only is None or check.check in only]
            for check in tqdm(chosen, "audit", leave=False, unit="check", disable=None):
                failed = [finding.check for finding in findings if not finding.passed]
                findings.append(replace(check(context), first=failed[0] if failed else None))
    finally:
        log.setLevel(heard)
        gc.collect()  # spies and those they spy on hold each other
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return findings


def audit(context: AuditContext) -> list[Finding]:
    """Run all checks, log how it went, and stop at failures.

    Raises:
        AuditFailed: the failed checks, one line.
    """
    started = time.perf_counter()
    findings = find_bugs(context)
    failed = [finding for finding in findings if not finding.passed]
    for finding in findings:
        if finding.told or not finding.passed:
            log.info(finding.line())
    seconds = time.perf_counter() - started
    log.info(
        "audit: %d of %d checks passed, %.1f s", len(findings) - len(failed), len(findings), seconds
    )
    if failed:
        names = ", ".join(finding.check for finding in failed)
        raise AuditFailed(f"the audit failed at: {names}; mend it, or go on with --audit false")
    return findings
