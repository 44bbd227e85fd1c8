"""The contract of executors, held by the one for containers on a real engine."""

from tests.contract.test_executor import *  # noqa: F403
from tests.contract.test_files import (  # noqa: F401
    job,
    test_a_file_is_read_in_parts_and_its_version_tells_changes,
    test_files_are_found_below_a_path_in_order,
    test_files_stay_after_the_end,
    test_output_is_a_sign_of_life,
    test_what_was_never_started_has_no_files_and_was_never_heard_of,
)
from tests.contract.test_measure import test_what_was_never_started_is_left_out  # noqa: F401
