"""Tables: shape and truth. What must hold together is a constraint; behaviour lives in the services."""

from upgrades.models.agent import Agent, LogFile, LogLine, ProcessChange
from upgrades.models.api import ApiToken, StoredAnswer
from upgrades.models.environment import Application, Environment, GroupRole, Host, Membership, Target
from upgrades.models.import_draft import ImportDraft
from upgrades.models.notice import (
    CalendarFeed,
    Notice,
    NoticeChoice,
    NoticeDelivery,
    NoticeEndpoint,
    PlannedTime,
)
from upgrades.models.operation import Attempt, GateOpening, Heartbeat
from upgrades.models.plan import Claim, Finding, PlanItem, PlanOfRecord
from upgrades.models.policy import PolicyChange, Presence
from upgrades.models.procedure import ProcedureVersion
from upgrades.models.record import (
    Checkpoint,
    CheckpointDelivery,
    CheckpointLeaf,
    CheckpointWatch,
    RegisterEntry,
    SavedSearch,
)
from upgrades.models.run import (
    CommandReceipt,
    Evidence,
    Run,
    RunBinding,
    RunBurden,
    RunEvent,
    RunRequest,
    RunStep,
)
from upgrades.models.sign_in import SignedIn

__all__ = [
    "Agent",
    "ApiToken",
    "Application",
    "Attempt",
    "CalendarFeed",
    "Checkpoint",
    "CheckpointDelivery",
    "CheckpointLeaf",
    "CheckpointWatch",
    "Claim",
    "CommandReceipt",
    "Environment",
    "Evidence",
    "Finding",
    "GateOpening",
    "GroupRole",
    "Heartbeat",
    "Host",
    "ImportDraft",
    "LogFile",
    "LogLine",
    "Membership",
    "Notice",
    "NoticeChoice",
    "NoticeDelivery",
    "NoticeEndpoint",
    "PlanItem",
    "PlanOfRecord",
    "PlannedTime",
    "PolicyChange",
    "Presence",
    "ProcedureVersion",
    "ProcessChange",
    "RegisterEntry",
    "Run",
    "RunBinding",
    "RunBurden",
    "RunEvent",
    "RunRequest",
    "RunStep",
    "SavedSearch",
    "SignedIn",
    "StoredAnswer",
    "Target",
]
