"""`fit`: one loop, one precision path; and what it leaves to go on from."""

from common.training.loop import Trainer, fit
