"""How a model server is asked: under which path, how long, how often."""

from emberline.route.clusters import Json
from emberline.route.headers import VERSION_HEADER
from emberline.route.settings import Limits

# of the time for a request: as long as one try may take, so that another one can follow
_TRY_SHARE = 0.45


def asking(model: str, limits: Limits, num_retries: int) -> Json:
    """The part of a route's action that is the same for all variants."""
    how: Json = {
        # TorchServe knows versions on this path only; the chosen cluster's route has put its own into the header
        "path_rewrite": f"/predictions/{model}/%REQ({VERSION_HEADER})%",
        "timeout": f"{limits.timeout_s:g}s",
    }
    if num_retries:
        how["retry_policy"] = {
            # 503: TorchServe's queue was full. 507, and now and then 500: its worker died with the batch. A handler's
            # own 500 cannot be told from that one, and is asked for again as well
            "retry_on": "connect-failure,refused-stream,reset,retriable-status-codes",
            # now and then TorchServe forgets a request whose worker dies as it takes it: nobody would ever answer
            "per_try_timeout": f"{limits.timeout_s * _TRY_SHARE:g}s",
            "retriable_status_codes": [500, 503, 507],
            "num_retries": num_retries,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": "type.googleapis.com/"
                        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                    },
                }
            ],
            "host_selection_retry_max_attempts": 3,
            "retry_back_off": {"base_interval": "0.05s", "max_interval": "0.5s"},
        }
    return how
