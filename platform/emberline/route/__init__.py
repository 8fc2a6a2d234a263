"""The router: experiments in, Envoy's files out; exposures and outcomes in, Parquet out.

`clusters`, `routes`, `own_routes` and `bootstrap` decide what Envoy does (pure), `render` checks and publishes it,
`envoy` runs it, `shipping` turns its log into rows, `outcomes` takes what became known later, `supervisor` ties them
together.
"""
