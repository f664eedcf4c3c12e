"""Sandbox process: limits on memory and time, isolation, recovery after a crash, forks and threads."""

import os
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from campaigns.content import merge_fields
from campaigns.content.mjml import subprocess_sandbox
from campaigns.errors import ValidationFailed
from tests.content.fixtures import ORGANISATION, mjml_source


def render(template: str, timeout: float = subprocess_sandbox.TIMEOUT, **names: object) -> object:
    return subprocess_sandbox.run_in_sandbox({"question": "merge", "template": template, "names": names}, timeout)


def test_child_is_reused() -> None:
    assert render("{{ a }}<", a="<b>") == "&lt;b&gt;<"
    before = {each.process.pid for each in subprocess_sandbox._pool._idle}
    render("{{ a }}")
    assert {each.process.pid for each in subprocess_sandbox._pool._idle} == before


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 50000000 }}",  # exceeds the size of a mail
        "{{ 'a' * 5000000000 }}",  # exceeds the child's memory
        "{% for i in range(10**9) %}x{% endfor %}",  # Jinja's own limit of range()
        "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",  # output grows without limit
        "{{ 10 ** (10 ** 10) }}",  # constant, folded at compile time
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",  # uses time without output
        "{{ ''.__class__.__mro__ }}{{ 1/0 }}",
        "{{ (" + "(" * 5000,
    ],
)
def test_limits(template: str) -> None:
    with pytest.raises(ValidationFailed):
        render(template, timeout=1)
    assert render("{{ a }}", a="still here") == "still here"


def test_slow_child_times_out() -> None:
    with pytest.raises(ValidationFailed, match="too much time"):
        render("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", timeout=0.3)
    assert render("x") == "x"


def test_a_child_killed_while_idle_is_replaced() -> None:
    render("x")
    for each in subprocess_sandbox._pool._idle:
        each.process.kill()
        each.process.wait()
    assert render("y") == "y"


def test_the_child_has_no_secrets_and_cannot_write() -> None:
    render("x")
    pid = subprocess_sandbox._pool._idle[0].process.pid
    if not os.path.exists(f"/proc/{pid}/environ"):  # noqa: PTH110
        pytest.skip("no /proc on this system")
    with open(f"/proc/{pid}/environ", "rb") as environ:  # noqa: PTH123
        names = {entry.partition(b"=")[0] for entry in environ.read().split(b"\0") if entry}
    assert names <= {b"PYTHONPATH", b"PYTHONUTF8", b"PATH", b"LC_CTYPE"}


def test_threads_share_a_few_children() -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: render("{{ n }}", n=n), range(40)))
    assert answers == [str(n) for n in range(40)]
    assert len(subprocess_sandbox._pool._idle) <= subprocess_sandbox._MAX_CHILDREN


def _use_sandbox_in_fork() -> None:
    assert render("{{ a }}", a="child") == "child"
    subprocess_sandbox._pool.close()


def test_a_forked_process_has_children_of_its_own() -> None:
    """Like Celery's prefork pool: daemonic processes, forked after the parent has used the sandbox."""
    render("x")
    child = get_context("fork").Process(target=_use_sandbox_in_fork, daemon=True)
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert render("z") == "z"


def test_source_that_would_crash_mrml_is_reported() -> None:
    request = {
        "question": "build",
        "draft": {
            "subject": "x",
            "preheader": "",
            "mjml": "<mjml><mj-body>" + "<mj-section>" * 20_000,
            "language": "en",
        },
        "known": list(merge_fields.BUILT_IN_FIELDS),
        "hosts": [],
        "names": merge_fields.sample_fields("en", ORGANISATION),
    }
    response = subprocess_sandbox.run_in_sandbox(request)
    assert response["size"] == 0
    assert response["built"]["findings"]
    request["draft"]["mjml"] = mjml_source()  # type: ignore[index]
    assert subprocess_sandbox.run_in_sandbox(request)["size"] > 1000
