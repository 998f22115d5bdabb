"""The audit: behavioural checks that find the bugs that training code has."""

import logging
import time

from common import checks_data, checks_evaluation, checks_network, checks_training
from common.subject import Check, Finding, Subject
from common.utils.errors import UserError

log = logging.getLogger("rungs")

# in the order in which one would look: what goes in, what comes out, what training does to it
CHECKS: list[Check] = [
    checks_network.shapes_fit,
    checks_data.pixels_normalised,
    checks_data.labels_belong,
    checks_data.splits_disjoint,
    checks_data.splits_used,
    checks_data.train_shuffled,
    checks_data.augmentation_on_train,
    checks_network.loss_at_start,
    checks_network.logits_not_probabilities,
    checks_network.nonlinearity_between,
    checks_training.overfits_one_batch,
    checks_training.step_as_configured,
    checks_training.modes,
    checks_training.frozen_is_frozen,
    checks_training.rate_as_configured,
    checks_training.same_seed_same_result,
    checks_training.test_untouched,
    checks_training.best_epoch_kept,
    checks_evaluation.evaluations_agree,
    checks_evaluation.batch_independent,
    checks_evaluation.total_over_total,
    checks_evaluation.blind_is_blind,
    checks_evaluation.scored_on_test,
    checks_evaluation.tta_averages,
]


class AuditFailed(UserError):
    """At least one check failed."""

    status = 1


def find_bugs(subject: Subject, only: list[str] | None = None) -> list[Finding]:
    """Run the checks (or those with the given names) and return what each found."""
    level = log.level
    log.setLevel(logging.WARNING)  # of the tiny runs inside, nobody wants to hear
    try:
        return [check(subject) for check in CHECKS if only is None or check.check in only]
    finally:
        log.setLevel(level)


def audit(subject: Subject) -> list[Finding]:
    """Run all checks, log how it went, and stop at failures.

    Raises:
        AuditFailed: the failed checks, one line.
    """
    started = time.perf_counter()
    findings = find_bugs(subject)
    failed = [finding for finding in findings if not finding.passed]
    for finding in failed:
        log.info(finding.line())
    seconds = time.perf_counter() - started
    log.info(
        "audit: %d of %d checks passed, %.1f s", len(findings) - len(failed), len(findings), seconds
    )
    if failed:
        names = ", ".join(finding.check for finding in failed)
        raise AuditFailed(f"the audit failed at: {names}; mend it, or go on with --audit false")
    return findings
