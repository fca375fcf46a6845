"""Late fusions: gate (the paper's), others like it, cross-attention, whitened (in closed form), none."""

from n2kit.contract import ComponentSpec, hookimpl

N2KIT_PLUGIN_API = (2, 0)


def _fusion(name: str, target: str, card: str, summary: str, config: str = "NoOptions") -> ComponentSpec:
    return ComponentSpec(
        kind="fusion",
        name=name,
        target=f"n2kit_fusion.{target}",
        summary=summary,
        config=f"n2kit_fusion.plan:{config}",
        card=f"n2kit_fusion.plan:{card}",
        capabilities=frozenset({"bfloat16"}),
    )


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        _fusion(
            "gate",
            "fusions:Gate",
            "gate_card",
            "z ⊙ n + (1 − z) ⊙ W v with z = sigmoid(W_z [n ; W v]) (the paper's)",
        ),
        _fusion("normalised-gate", "fusions:NormalisedGate", "gate_card", "the gate, between n and W v both at RMS 1"),
        _fusion(
            "tanh-gate",
            "fusions:TanhGate",
            "tanh_gate_card",
            "z ⊙ tanh(W_1 n) + (1 − z) ⊙ tanh(W_2 W v) with the gate's z (gated multimodal unit)",
        ),
        _fusion("residual-gate", "fusions:ResidualGate", "gate_card", "n + z ⊙ W v with the gate's z"),
        _fusion("concat", "fusions:Concat", "gate_card", "W_c [n ; W v]"),
        _fusion("sum", "fusions:Sum", "sum_card", "n + W v"),
        _fusion(
            "cross-attention",
            "attention:CrossAttention",
            "cross_attention_card",
            "the word attends to all vision tokens, residual; needs no pooled vector",
            config="CrossAttentionConfig",
        ),
        _fusion(
            "whitened",
            "whitened:Whitened",
            "whitened_card",
            "[√(1−w) unit(A n) ; √w unit(B v)] of standardised n and v; n2kit fit computes A, B and w, nothing is trained",
        ),
        _fusion("none", "fusions:NoFusion", "none_card", "the compressed word as it is"),
    ]
