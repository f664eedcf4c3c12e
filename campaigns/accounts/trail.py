"""The audit trail in its reader's words: rooms write verbs and subjects in short English."""

from campaigns.language import N_

VERBS = {
    "add": N_("added"), "approve": N_("approved"), "assign": N_("handed over"), "begin": N_("began"),
    "cancel": N_("cancelled"), "change": N_("changed"), "change role": N_("changed the role of"),
    "change stage": N_("changed the stage of"), "come back": N_("came back"), "create": N_("created"),
    "decide": N_("resolved"), "delete": N_("deleted"), "enter": N_("entered"), "erase": N_("erased"),
    "finish": N_("finished"), "found": N_("founded"), "freeze": N_("froze for sending"), "launch": N_("launched"),
    "lift": N_("lifted"), "lock": N_("locked"), "note": N_("wrote notes on"), "pause": N_("paused"),
    "reopen": N_("took back to draft"), "resume": N_("resumed"), "send test": N_("sent a test of"),
    "set password": N_("set the password of"), "sign in": N_("signed in"), "start": N_("started"),
    "submit": N_("asked for a review of"), "suppress": N_("suppressed"), "unlock": N_("unlocked"),
    "update": N_("changed"), "upload": N_("uploaded"),
}  # fmt: skip
"""A verb that is not here is shown as it was written."""

SUBJECTS = {
    "activity": N_("activity"), "campaign": N_("campaign"), "contact": N_("contact"), "form": N_("landing page"),
    "import": N_("import"), "lead": N_("lead"), "list": N_("list"), "message": N_("message"),
    "organisation": N_("organisation"), "person": N_("person"), "send": N_("send"),
    "suppression": N_("suppression"),
}  # fmt: skip

PLACES = {
    "activity": "/activities/", "campaign": "/campaigns/", "contact": "/contacts/", "import": "/imports/",
    "lead": "/leads/", "list": "/lists/", "message": "/messages/",
}  # fmt: skip
"""Where a subject's page is, before its number."""

ACTORS = {"public": N_("a visitor"), "clock": N_("the clock")}
