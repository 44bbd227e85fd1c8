"""The spawn form as a value: what is greyed out, what waits, and that all of it is escaped."""

from dataclasses import replace

from nimbus_spawner.form import render_form, unavailable_form

from nimbus_hub.client.choices import Environment, GpuCount, Options, Queue, Size
from nimbus_hub.client.hosts import Gpu, Host

G = 2**30
OPTIONS = Options(
    environments=(Environment("default", "Python <3> & PyTorch"),),
    sizes=(Size("small", 1000, 2 * G, 0), Size("gpu", 2000, 8 * G, 1), Size("huge", 64000, G, 0)),
    gpus=(GpuCount("A100", 4, 3),),
    frameworks=("script",),
    queues=(Queue("default", 0, 0, False),),
    datacenters=("dc",),
    largest_cpus_milli=4000,
    largest_memory_bytes=16 * G,
    largest_gpus=4,
    default_length_seconds=7200.0,
    longest_length_seconds=43200.0,
    renewal_seconds=7200.0,
    latest_end_seconds=43200.0,
)
HOST = Host(
    name="h1",
    datacenter="dc",
    rack="r1",
    address="127.0.0.1",
    state="ready",
    state_reason="",
    labels={},
    cpus_milli=4000,
    cpus_free_milli=1500,
    memory_bytes=16 * G,
    memory_free_bytes=8 * G,
    gpus=(Gpu(0, "A100", 40 * G, 1000, None, (), ""),),
)

SIZES = """\
<fieldset class="nimbus-sizes mb-3"><legend>Size</legend>
<div class="form-check"><label class="form-check-label"><input class="form-check-input" \
type="radio" name="size" value="small" checked> <strong>small</strong> 1 CPU, 2G memory\
</label></div>
<div class="form-check"><label class="form-check-label"><input class="form-check-input" \
type="radio" name="size" value="gpu"> <strong>gpu</strong> 2 CPU, 8G memory, 1 GPU \
<em class="text-muted">(will wait: not free on any host now)</em></label></div>
<div class="form-check"><label class="form-check-label"><input class="form-check-input" \
type="radio" name="size" value="huge" disabled> <strong>huge</strong> 64 CPU, 1G memory \
<em class="text-muted">(impossible: the largest host has 4 CPUs)</em></label></div>
"""


def test_the_form_greys_out_the_impossible_and_names_what_waits():
    assert render_form(OPTIONS, (HOST,), "10m").startswith(SIZES)


def test_the_form_counts_free_gpus_by_model():
    assert '<p class="nimbus-gpus">GPUs: A100: 3 of 4 free</p>' in render_form(
        OPTIONS, (HOST,), "10m"
    )


def test_a_cluster_without_gpus_offers_none():
    form = render_form(replace(OPTIONS, gpus=(), largest_gpus=0), (), "10m")
    assert '<p class="nimbus-gpus">GPUs: none on these hosts</p>' in form
    assert 'name="gpus"' not in form


def test_text_from_outside_is_escaped():
    form = render_form(OPTIONS, (), "10m")
    assert '<option value="default">default: Python &lt;3&gt; &amp; PyTorch</option>' in form


def test_the_form_offers_to_wait_as_long_as_the_spawner_does():
    form = render_form(OPTIONS, (), "90")
    assert 'Wait at most <input class="form-control" name="wait" placeholder="1m30s"' in form
    assert '<p class="text-muted">For a free place: 1m30s unless you choose less.</p>' in form


def test_a_notice_stands_on_top_of_the_form():
    assert render_form(OPTIONS, (), "10m", "<p>ended</p>").startswith("<p>ended</p>\n<fieldset")


def test_a_service_that_does_not_answer_leaves_a_sentence_in_place_of_the_form():
    assert unavailable_form("<no> answer.") == (
        '<div class="alert alert-danger" role="alert">'
        "&lt;no&gt; answer. Try again in a minute.</div>"
    )


def test_queue_and_datacenter_are_asked_for_only_where_there_is_a_choice():
    form = render_form(OPTIONS, (HOST,), "10m")
    assert 'name="queue"' not in form
    assert 'name="datacenter"' not in form
    wider = replace(
        OPTIONS,
        queues=(Queue("<vip>", 10, 0, False), *OPTIONS.queues, Queue("night", 0, 0, True)),
        datacenters=("east", "<west>"),
    )
    form = render_form(wider, (HOST,), "10m")
    assert (
        '<select class="form-select" name="queue"><option value="&lt;vip&gt;">&lt;vip&gt;</option>'
        '<option value="default" selected>default</option>'
        '<option value="night">night: may be stopped for others</option></select>'
    ) in form
    assert (
        '<select class="form-select" name="datacenter"><option value="">where it is best</option>'
        "<option>east</option><option>&lt;west&gt;</option></select>"
    ) in form


def test_a_debug_gang_may_be_chosen_besides():
    form = render_form(replace(OPTIONS, frameworks=("script", "<torch>")), (HOST,), "10m")
    assert (
        '<select class="form-select" name="debug_framework"><option>script</option>'
        "<option>&lt;torch&gt;</option></select>"
    ) in form
    names = ("debug_workers", "debug_gpus", "debug_ps")
    assert [name for name in names if f'name="{name}"' not in form] == []
    assert 'name="debug_gpus"' not in render_form(replace(OPTIONS, largest_gpus=0), (), "10m")
