"""The pytest plugin, in test sessions of its own."""

from pathlib import Path

import pytest

from pylog import pytest_plugin

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _plugin_and_package(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session has the plugin that is tested, installed or not."""
    monkeypatch.setenv("PYTHONPATH", str(Path(pytest_plugin.__file__).parents[1]))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def run(pytester: pytest.Pytester, source: str) -> pytest.RunResult:
    pytester.makepyfile(source)
    return pytester.runpytest_subprocess("-p", "pylog.pytest_plugin", "-q")


def test_each_test_gets_a_log_of_its_own_that_is_closed_afterwards(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        """
        logs = []

        def test_first(pylog_log, tmp_path):
            pylog_log.producer().send("orders", b"x").get()
            assert [record.value for record in pylog_log.read("orders")] == [b"x"]
            assert list(tmp_path.iterdir()) == []
            logs.append(pylog_log)

        def test_second(pylog_log):
            assert pylog_log.admin.list_topics() == []
            assert repr(logs[0]).endswith(", closed>")
        """,
    ).assert_outcomes(passed=2)


def test_a_test_that_closes_its_log_is_not_asked_again(pytester: pytest.Pytester) -> None:
    run(pytester, "def test_it(pylog_log): pylog_log.close()").assert_outcomes(passed=1)


FAILING = """
    def fail(log):
        producer = log.producer(linger_ms=60_000)
        log.admin.create_topic("orders")
        future = producer.send("orders", b"x")
        log.admin.delete_topics(["orders"])
        return future
"""


def test_a_send_that_failed_unseen_fails_the_test(pytester: pytest.Pytester) -> None:
    result = run(pytester, FAILING + "\n    def test_it(pylog_log): fail(pylog_log)")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*UnknownTopicOrPartitionError: topic orders was deleted",
            "*when pylog_log was closed: the test did not look*",
        ]
    )


def test_a_send_whose_failure_was_looked_at_does_not(pytester: pytest.Pytester) -> None:
    test = "\n    def test_it(pylog_log): assert fail(pylog_log).exception() is not None"
    run(pytester, FAILING + test).assert_outcomes(passed=1)


KAFKA_TEST = """
    import sys

    def test_pylog(pylog_kafka):
        from kafka import KafkaConsumer, KafkaProducer, TopicPartition
        from kafka.errors import KafkaError
        import kafka.admin
        import pylog.kafka.errors

        assert KafkaError is pylog.kafka.errors.KafkaError
        assert kafka.admin.KafkaAdminClient is pylog.kafka.KafkaAdminClient
        producer = KafkaProducer(bootstrap_servers=pylog_kafka)
        assert producer.send("orders", b"x").get(timeout=10).offset == 0
        consumer = KafkaConsumer(
            "orders", bootstrap_servers=pylog_kafka, auto_offset_reset="earliest", consumer_timeout_ms=10_000
        )
        assert next(consumer).value == b"x"

    def test_next(pylog_kafka):
        import kafka

        assert kafka.KafkaAdminClient(bootstrap_servers=pylog_kafka).list_topics() == []
"""


def test_import_kafka_is_pylogs_during_the_test(pytester: pytest.Pytester) -> None:
    after = """
    def test_after():
        assert not [name for name in sys.modules if name.split(".")[0] == "kafka"]
    """
    run(pytester, KAFKA_TEST + after).assert_outcomes(passed=3)


def test_the_kafka_that_was_imported_before_is_back_afterwards(pytester: pytest.Pytester) -> None:
    pytester.mkpydir("kafka")
    pytester.path.joinpath("kafka", "errors.py").write_text("class KafkaError(Exception): pass\n")
    result = run(
        pytester,
        "    import kafka, kafka.errors\n    before = kafka, kafka.errors\n"
        + KAFKA_TEST
        + """
    def test_after():
        import kafka, kafka.errors

        assert (kafka, kafka.errors) == before
        assert kafka.errors.__file__.endswith("kafka/errors.py") and "pylog" not in kafka.errors.__name__
        assert not [name for name in sys.modules if name.startswith("kafka.admin")]
    """,
    )
    result.assert_outcomes(passed=3)


def test_the_plugin_is_registered_and_packaged() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert '[project.entry-points.pytest11]\npylog = "pylog.pytest_plugin"\n' in project
