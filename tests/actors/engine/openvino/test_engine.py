"""What the ONNX engine does, on OpenVINO: the same tests with this folder's `backend`."""

from __future__ import annotations

from tests.actors.engine.onnx.test_answers import (
    test_a_chat_is_answered_and_ends_by_itself,
    test_a_seed_gives_the_same_answer_alone_and_in_company,
    test_a_stop_string_over_the_border_of_tokens_ends_the_text_before_it,
    test_logprobs_match_the_tokens_and_the_greedy_choice,
)
from tests.actors.engine.onnx.test_batching import (
    test_a_cancelled_generation_frees_its_row_at_the_next_step,
    test_a_late_request_gets_its_first_token_before_the_others_end,
    test_a_shared_prefix_is_reused_and_changes_nothing,
    test_decoding_goes_on_while_a_long_prompt_is_read,
    test_greedy_answers_do_not_depend_on_who_shares_the_batch,
    test_prompts_that_arrive_together_share_what_the_first_has_read,
)
from tests.actors.engine.onnx.test_continuation import (
    test_a_guide_goes_on_inside_what_it_has_begun,
    test_a_stop_string_that_began_in_the_prefix_stops,
    test_an_answer_goes_on_after_any_of_its_tokens,
)
from tests.actors.engine.onnx.test_embedding import test_a_text_embeds_alike_alone_and_in_company
from tests.actors.engine.onnx.test_guidance import test_a_plan_of_agents_is_always_valid
from tests.actors.engine.onnx.test_lookahead import (
    test_a_generation_that_looked_ahead_goes_on_in_company,
    test_a_greedy_answer_is_the_same_with_lookahead,
    test_sampling_and_rules_see_each_token_in_its_turn,
)
from tests.actors.engine.onnx.test_tool_calling import (
    test_a_named_function_is_called_with_arguments_of_its_schema,
)

__all__ = [
    "test_a_cancelled_generation_frees_its_row_at_the_next_step",
    "test_a_chat_is_answered_and_ends_by_itself",
    "test_a_generation_that_looked_ahead_goes_on_in_company",
    "test_a_greedy_answer_is_the_same_with_lookahead",
    "test_a_guide_goes_on_inside_what_it_has_begun",
    "test_a_late_request_gets_its_first_token_before_the_others_end",
    "test_a_named_function_is_called_with_arguments_of_its_schema",
    "test_a_plan_of_agents_is_always_valid",
    "test_a_seed_gives_the_same_answer_alone_and_in_company",
    "test_a_shared_prefix_is_reused_and_changes_nothing",
    "test_a_stop_string_over_the_border_of_tokens_ends_the_text_before_it",
    "test_a_stop_string_that_began_in_the_prefix_stops",
    "test_a_text_embeds_alike_alone_and_in_company",
    "test_an_answer_goes_on_after_any_of_its_tokens",
    "test_decoding_goes_on_while_a_long_prompt_is_read",
    "test_greedy_answers_do_not_depend_on_who_shares_the_batch",
    "test_logprobs_match_the_tokens_and_the_greedy_choice",
    "test_prompts_that_arrive_together_share_what_the_first_has_read",
    "test_sampling_and_rules_see_each_token_in_its_turn",
]
