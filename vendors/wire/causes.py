"""Why vendors refuse or fail: the causes, what vendors call them, and their statuses. All data.

Names are matched whole and in lower case. What has no name is known by its words: ``sentences``.
"""

from __future__ import annotations

from enum import IntEnum


class Cause(IntEnum):
    """What is the matter, in the order in which it is looked for."""

    BUSY_BUDGET = 1
    """Money is held for requests in flight: as a limit, it passes."""
    MONEY = 2
    NEVER_FITS = 3
    """More tokens than a minute's limit: waiting does not help, a smaller prompt does."""
    OVERFLOW = 4
    FILTER = 5
    AUTH = 6
    ENDPOINT = 7
    """There is no such path."""
    MISSING = 8
    CAPACITY = 9
    """No room, and not for want of a higher limit: some call it a rate."""
    RATE = 10
    OVERLOAD = 11
    LATE = 12
    """The vendor's own deadline passed."""
    MEMORY = 13
    CRASH = 14
    ARCHITECTURE = 15
    REPLY = 16
    """The model wrote what is no tool call or no JSON, and the vendor says so."""
    GATEWAY = 17
    """Something in between reached nobody."""
    NO_SCHEMA = 18
    """No schema can be used, whichever it is."""
    SCHEMA = 19
    UNSUPPORTED = 20
    SERVER = 21
    BAD = 22


_KINDS: dict[Cause, str] = {
    Cause.BUSY_BUDGET: "in_flight_budget_exhausted",
    Cause.MONEY: """
        insufficient_quota billing_error billing_hard_limit_reached billing_not_active
        credit_balance_exhausted organization_spend_limit_exceeded project_spend_limit_exceeded
        organization_usage_limit_exceeded enforced_spend_limit_reached contract_spend_limit_reached
        payment_required insufficient_credits insufficient_balance weight_exceeds_budget
        budget_exceeded budgetexceedederror quota_exceeded credit_limit
        linked_organization_billing_unavailable user_profile_not_billable""",
    Cause.OVERFLOW: """
        context_length_exceeded exceed_context_size_error contextwindowexceedederror
        token_limit_exceeded max_tokens_exceeded string_too_long request_too_large
        context_window_exceeded model_context_window_exceeded payload_too_large
        request_body_too_large_after_decoding""",
    Cause.FILTER: """
        content_filter content_policy_violation responsibleaipolicyviolation invalid_prompt
        bio_policy cyber_policy misalignment_policy_violation image_content_policy_violation refusal
        contentpolicyviolationerror moderation moderation_blocked content_filtered
        content_moderation""",
    Cause.AUTH: """
        authentication_error authenticationerror invalid_api_key api_key_invalid api_key_expired
        incorrect_api_key invalid_authentication unauthenticated unauthorized permission_error
        permission_denied permissiondeniederror api_key_service_blocked service_disabled
        insufficient_permissions access_denied account_deactivated organization_on_hold
        unsupported_country_region_territory token_not_found_in_db expired_key auth_error
        key_model_access_denied team_model_access_denied user_model_access_denied
        permissiondenied invalid_token model_terms_required organization_disabled_error
        claude_code_key_creator_not_member""",
    Cause.MISSING: """
        model_not_found not_found_error notfounderror not_found deploymentnotfound
        deployment_not_found invalid_model unknown_model model_decommissioned model_deprecated
        model_not_available model_not_active""",
    Cause.CAPACITY: """
        capacity_exceeded model_capacity_exhausted service_tier_capacity_exceeded
        provider_overloaded server_is_overloaded engine_overloaded overloaded_error""",
    Cause.RATE: """
        rate_limit_error rate_limit_exceeded ratelimiterror rate_limited ramp_limit_exceeded
        slow_down resource_exhausted ratelimitreached too_many_requests toomanyrequests
        throttlingexception throttling_error model_rate_limit ratelimitexceeded""",
    Cause.OVERLOAD: """
        overloaded service_unavailable_error service_unavailable serviceunavailableerror
        unavailable_error unavailable provider_unavailable admission_rejected model_loading
        no_db_connection conflict_error""",
    Cause.LATE: """
        timeout timeout_error request_timeout deadline_exceeded gateway_timeout
        edge_network_timeout""",
    Cause.GATEWAY: "apiconnectionerror bad_gateway",
    Cause.REPLY: """
        tool_use_failed json_validate_failed jsonschemavalidationerror output_parse_failed""",
    Cause.SCHEMA: """
        invalid_json_schema invalid_function_parameters invalid_grammar""",
    Cause.UNSUPPORTED: """
        unsupported_parameter unsupported_value unsupported_model unsupported_content_type
        unknown_parameter not_supported_error unsupportedparamserror unimplemented not_implemented
        notimplementederror operationnotsupported unsupported_operation""",
    Cause.ENDPOINT: "unknown_url",
    Cause.SERVER: """
        server_error api_error apierror internal internal_error internal_server_error
        internalservererror server""",
    Cause.BAD: """
        invalid_request_error invalid_argument badrequesterror bad_request_error bad_request
        invalid_request invalid_value unprocessableentityerror validation_error
        failed_precondition badrequest""",
}

BY_KIND = {word: cause for cause, words in _KINDS.items() for word in words.split()}
"""Causes by what vendors call them."""

BY_ENDING = (("_policy_violation", Cause.FILTER), ("_spend_limit_reached", Cause.MONEY))
"""Names that vendors add to, by how they end."""

BY_STATUS: dict[int, Cause] = {
    401: Cause.AUTH,
    402: Cause.MONEY,
    403: Cause.AUTH,
    404: Cause.MISSING,
    405: Cause.ENDPOINT,
    408: Cause.LATE,
    409: Cause.OVERLOAD,
    410: Cause.MISSING,
    413: Cause.OVERFLOW,
    423: Cause.OVERLOAD,
    425: Cause.OVERLOAD,
    429: Cause.RATE,
    451: Cause.AUTH,
    498: Cause.CAPACITY,
    499: Cause.GATEWAY,
    501: Cause.UNSUPPORTED,
    502: Cause.GATEWAY,
    503: Cause.OVERLOAD,
    504: Cause.LATE,
    520: Cause.GATEWAY,
    521: Cause.GATEWAY,
    522: Cause.GATEWAY,
    523: Cause.GATEWAY,
    524: Cause.LATE,
    525: Cause.GATEWAY,
    526: Cause.GATEWAY,
    527: Cause.GATEWAY,
    529: Cause.OVERLOAD,
    530: Cause.GATEWAY,
}
"""Causes by status, where nothing was said; other 5xx are the server's own, the rest is ours."""
