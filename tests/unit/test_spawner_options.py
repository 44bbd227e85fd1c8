"""What a user may choose for a session, and the sentence for what they may not."""

import pytest
from nimbus_spawner.options import GangOptions, SessionOptions, options_from_form

from nimbus_hub.errors import InvalidRequest


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, SessionOptions()),
        ({"size": "small"}, SessionOptions(size="small")),
        ({"size": ["small"], "duration": ["2m"]}, SessionOptions(size="small", duration="2m")),
        ({"size": "", "duration": None}, SessionOptions()),
        ({"wait": ["2m"]}, SessionOptions(wait="2m")),
        ({"wait": 90}, SessionOptions(wait="90")),
        ({"wait": " "}, SessionOptions()),
        ({"environment": "torch"}, SessionOptions(environment="torch")),
        (
            {"queue": ["night"], "datacenter": ["west"]},
            SessionOptions(queue="night", datacenter="west"),
        ),
        ({"queue": "", "datacenter": ""}, SessionOptions()),
        (
            {"size": "small", "debug_framework": ["pytorch"], "debug_workers": ["2"]}
            | {"debug_gpus": ["1"], "debug_ps": [""]},
            SessionOptions(size="small", gang=GangOptions("pytorch", 0, 2, "1")),
        ),
        ({"debug_ps": 1}, SessionOptions(gang=GangOptions(ps=1))),
        (
            {"cpus": 2, "debug_workers": 3},
            SessionOptions(cpus="2", memory="2G", gpus="0", gang=GangOptions(workers=3)),
        ),
        (
            {"gpus": "A100,V100:0.5"},
            SessionOptions(cpus="1", memory="2G", gpus="A100,V100:0.5"),
        ),
        ({"cpus": 2}, SessionOptions(cpus="2", memory="2G", gpus="0")),
        (
            {"size": "custom", "cpus": 0.5, "memory": "4G", "gpus": "A100:2"},
            SessionOptions(cpus="0.5", memory="4G", gpus="A100:2"),
        ),
    ],
)
def test_options_are_read_from_form_query_and_api(given, expected):
    assert SessionOptions.parse(given) == expected


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"memory": "lots"}, "memory must be a size like 4G or 512M, got 'lots'"),
        ({"cpus": "0"}, "cpus must be more than 0, got '0'"),
        ({"gpus": "-1"}, "gpus must be at least 0, got -1"),
        (
            {"gpus": "1.5"},
            "gpus must be a whole number or a share of one GPU, got 1.5",
        ),
        ({"duration": "soon"}, "duration must be like 90m, 2h or 1d, got 'soon'"),
        (
            {"sise": "small"},
            "there is no session option 'sise'; there are: "
            "size, cpus, memory, gpus, environment, duration, wait, queue, datacenter, "
            "debug_framework, debug_ps, debug_workers, debug_gpus",
        ),
        ({"debug_workers": 0}, "debug_workers must be a whole number from 1 to 1000, got '0'"),
        (
            {"debug_workers": "two"},
            "debug_workers must be a whole number from 1 to 1000, got 'two'",
        ),
        (
            {"debug_workers": 2, "debug_ps": "-1"},
            "debug_ps must be a whole number from 0 to 1000, got '-1'",
        ),
        (
            {"debug_workers": 2, "debug_gpus": "1.5"},
            "gpus must be a whole number or a share of one GPU, got 1.5",
        ),
        ({"size": "small", "cpus": 2}, "give a size or cpus, not both: got size 'small'"),
        ({"size": ["a", "b"]}, "session option size must be text or a number, got ['a', 'b']"),
        ({"wait": True}, "session option wait must be text or a number, got True"),
        ({"cpus": True}, "session option cpus must be text or a number, got True"),
    ],
)
def test_a_wrong_option_is_refused_with_what_would_be_right(given, sentence):
    with pytest.raises(InvalidRequest) as caught:
        SessionOptions.parse(given)
    assert caught.value.message == sentence


def test_numbers_of_the_form_count_only_with_the_custom_size():
    form = {"size": ["small"], "cpus": ["4"], "duration": [" 2h "], "_xsrf": ["x"], "memory": [""]}
    form["wait"] = [""]
    assert options_from_form(form) == {"size": "small", "duration": "2h"}
    form |= {"size": ["custom"], "wait": ["90s"]}
    assert options_from_form(form) == {
        "size": "custom",
        "cpus": "4",
        "duration": "2h",
        "wait": "90s",
    }


def test_a_debug_gang_is_meant_only_where_the_form_says_how_many():
    form = {"size": ["small"], "debug_framework": ["pytorch"], "debug_workers": [""]}
    assert options_from_form(form) == {"size": "small"}
    form["debug_ps"] = ["1"]
    assert options_from_form(form) == {
        "size": "small",
        "debug_framework": "pytorch",
        "debug_ps": "1",
    }
