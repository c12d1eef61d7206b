"""The tiny Qwen3-VL: its configuration, and a fast forward pass over Hugging Face's own modules.

The model is transformers.Qwen3VLForConditionalGeneration and nothing else; `forward` below only computes the same
function with the pictures of a batch (all of one size) batched and the layers compiled. `python3 model.py` checks
that it agrees with Hugging Face's forward.
"""
import torch
import torch.nn.functional as F

VOCAB, HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, INTER = 4096, 256, 6, 4, 2, 128, 512
THETA, EPS = 100000.0, 1e-6
V_HIDDEN, V_HEADS, V_DEPTH, V_INTER, DEEPSTACK = 128, 2, 4, 512, [0, 1, 2]
GRID, GROUP = 48, 32


def config(tok):
    from transformers import Qwen3VLConfig
    sid = tok.token_to_id
    rope = {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"}
    text = dict(vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=INTER, num_hidden_layers=LAYERS,
                num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM, hidden_act="silu",
                max_position_embeddings=4096, rms_norm_eps=EPS, attention_bias=False, attention_dropout=0.0,
                bos_token_id=sid("<|endoftext|>"), eos_token_id=sid("<|im_end|>"), pad_token_id=sid("<|endoftext|>"),
                rope_parameters={**rope, "rope_theta": THETA}, tie_word_embeddings=True, use_cache=True)
    vision = dict(depth=V_DEPTH, hidden_size=V_HIDDEN, intermediate_size=V_INTER, num_heads=V_HEADS, in_channels=3,
                  patch_size=16, spatial_merge_size=2, temporal_patch_size=2, out_hidden_size=HIDDEN,
                  num_position_embeddings=GRID * GRID, deepstack_visual_indexes=DEEPSTACK,
                  hidden_act="gelu_pytorch_tanh", initializer_range=0.02)
    return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True,
                         image_token_id=sid("<|image_pad|>"), video_token_id=sid("<|video_pad|>"),
                         vision_start_token_id=sid("<|vision_start|>"), vision_end_token_id=sid("<|vision_end|>"))


def build(tok, seed=0):
    from transformers import Qwen3VLForConditionalGeneration
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config(tok)).float()
    for name, p in model.named_parameters():
        if p.ndim >= 2 and ("layers" in name or "visual" in name) and "pos_embed" not in name:
            torch.nn.init.normal_(p, std=0.7 / p[0].numel() ** 0.5)
            if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight", "blocks.linear_fc2.weight")):
                torch.nn.init.zeros_(p)
    return model


# ---- 4-bit weights: asymmetric, groups of 32 along the input, bf16 scales -----------------------------------------

def quantize(w):
    """Codes 0..15, bf16 scales, zero points 0..15: w ~ (code - zero) * scale, from each group's minimum and maximum."""
    g = w.float().reshape(w.shape[0], -1, GROUP)
    low, high = g.amin(-1, keepdim=True).clamp(max=0), g.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / 15).clamp(min=1e-5).to(torch.bfloat16)
    s = scale.float()
    zero = torch.round(-low / s).clamp(0, 15)
    code = (torch.round(g / s) + zero).clamp(0, 15)
    return code.reshape(w.shape), scale.squeeze(-1), zero.squeeze(-1)


def dequantize(code, scale, zero):
    g = code.reshape(code.shape[0], -1, GROUP)
    return ((g - zero.unsqueeze(-1)) * scale.float().unsqueeze(-1)).to(torch.bfloat16).float().reshape(code.shape)


def fake_quantize(w):
    """The rounded weights forward, the identity backward."""
    return w + (dequantize(*quantize(w)) - w).detach()


# ---- positions ------------------------------------------------------------------------------------------------------

def text_positions(rows, length, device):
    return torch.arange(length, device=device).expand(3, rows, length)


def picture_positions(ids, pad_id, gh, gw):
    """[3, B, L]: one picture of gh x gw merged patches a row, anywhere in it."""
    b, n = ids.shape
    is_pad = ids == pad_id
    start = is_pad.int().argmax(1, keepdim=True)
    i = torch.arange(n, device=ids.device).expand(b, n)
    k = i - start
    after = i - gh * gw + max(gh, gw)
    t = torch.where(is_pad, start, torch.where(k > 0, after, i))
    h = torch.where(is_pad, start + k // gw, t)
    w = torch.where(is_pad, start + k % gw, t)
    return torch.stack([t, h, w])


def rope_tables(positions):
    """[3, B, L] -> cos, sin [B*L, 128] with the interleaved axes T H W T H W ... T."""
    j = torch.arange(64, device=positions.device)
    inv = 1.0 / THETA ** (j.float() * 2 / HEAD_DIM)
    axis = torch.where((j % 3 == 1) & (j < 60), 1, torch.where((j % 3 == 2) & (j < 60), 2, 0))
    p = positions.reshape(3, -1).float()[axis].T  # [T, 64]
    angle = p * inv
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


# ---- the text model ---------------------------------------------------------------------------------------------------

def rms(x, weight):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def before_attention(x, norm, wq, wk, wv, nq, nk, cos, sin, dtype, quant):
    fq = fake_quantize if quant else (lambda w: w)
    n = rms(x, norm).to(dtype)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    q = F.linear(n, fq(wq).to(dtype)).view(-1, HEADS, HEAD_DIM).float()
    k = F.linear(n, fq(wk).to(dtype)).view(-1, KV_HEADS, HEAD_DIM).float()
    v = F.linear(n, fq(wv).to(dtype)).view(-1, KV_HEADS, HEAD_DIM)
    return rotate(rms(q, nq), cos, sin).to(dtype), rotate(rms(k, nk), cos, sin).to(dtype), v


def after_attention(x, a, wo, norm, wg, wu, wd, dtype, quant):
    fq = fake_quantize if quant else (lambda w: w)
    x = x + F.linear(a, fq(wo).to(dtype)).float()
    n = rms(x, norm).to(dtype)
    h = F.silu(F.linear(n, fq(wg).to(dtype))) * F.linear(n, fq(wu).to(dtype))
    return x + F.linear(h, fq(wd).to(dtype)).float()


def token_losses(x, norm, embedding, targets, dtype):
    logits = F.linear(rms(x, norm).to(dtype), embedding.to(dtype)).float()
    return F.cross_entropy(logits, targets, reduction="none"), logits.argmax(-1)


class Fast:
    """Functions over a Qwen3VLForConditionalGeneration's own parameters; compiled on a GPU."""

    def __init__(self, model, compiled, dtype=torch.bfloat16):
        self.m, self.dtype = model, dtype
        wrap = torch.compile if compiled else (lambda f: f)
        self.before, self.after, self.losses = wrap(before_attention), wrap(after_attention), wrap(token_losses)
        self.block = wrap(vision_block)

    def text(self, x, positions, rows, length, quant=False, visual_index=None, deepstack=()):
        cos, sin = rope_tables(positions)
        for i, layer in enumerate(self.m.model.language_model.layers):
            at, mlp = layer.self_attn, layer.mlp
            q, k, v = self.before(x, layer.input_layernorm.weight, at.q_proj.weight, at.k_proj.weight, at.v_proj.weight,
                                  at.q_norm.weight, at.k_norm.weight, cos, sin, self.dtype, quant)
            q, k, v = (t.view(rows, length, -1, HEAD_DIM).transpose(1, 2) for t in (q, k, v))
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            a = a.transpose(1, 2).reshape(rows * length, HEADS * HEAD_DIM)
            x = self.after(x, a, at.o_proj.weight, layer.post_attention_layernorm.weight, mlp.gate_proj.weight,
                           mlp.up_proj.weight, mlp.down_proj.weight, self.dtype, quant)
            if i < len(deepstack):
                x = x.index_add(0, visual_index, deepstack[i].float())
        return x

    def forward(self, ids, kinds, images=None, grid=None, pad_id=None, quant=False):
        """(loss per predicted token [B, L-1], its prediction, kind of the predicted token)."""
        rows, length = ids.shape
        embedding = self.m.model.language_model.embed_tokens.weight
        x = F.embedding(ids.reshape(-1), embedding)
        if images is None:
            h = self.text(x, text_positions(rows, length, ids.device), rows, length, quant)
        else:
            features, deepstack = self.vision(images)
            index = (ids.reshape(-1) == pad_id).nonzero().squeeze(1)
            x = x.index_copy(0, index, features.float())
            h = self.text(x, picture_positions(ids, pad_id, *grid), rows, length, quant, index, deepstack)
        targets = torch.roll(ids, -1, 1).reshape(-1)
        loss, best = self.losses(h, self.m.model.language_model.norm.weight, embedding, targets, self.dtype)
        next_kind = torch.roll(kinds, -1, 1).clone()
        next_kind[:, -1] = 0
        return loss.view(rows, length), (best == targets).view(rows, length), next_kind

    def vision(self, images):
        """uint8 [B, H, W, 3] -> merged features [B*n, hidden], and one more of them per DeepStack level."""
        v, dt = self.m.model.visual, self.dtype
        b, hh, ww, _ = images.shape
        gh, gw = hh // 16, ww // 16
        x = (images.float() - 127.5) / 127.5
        x = x.view(b, gh // 2, 2, 16, gw // 2, 2, 16, 3).permute(0, 1, 4, 2, 5, 7, 3, 6)  # b, gh/2, gw/2, 2, 2, C, 16, 16
        x = x.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, 2, -1, -1).reshape(b * gh * gw, 1536)
        w = v.patch_embed.proj.weight
        x = F.linear(x.to(dt), w.view(V_HIDDEN, -1).to(dt)).float() + v.patch_embed.proj.bias
        x = x.view(b, gh * gw, V_HIDDEN) + self.position_embedding(gh, gw)
        cos, sin = self.vision_rope(gh, gw)
        deepstack = []
        for i, blk in enumerate(v.blocks):
            x = self.block(x, blk.norm1.weight, blk.norm1.bias, blk.attn.qkv.weight, blk.attn.qkv.bias,
                           blk.attn.proj.weight, blk.attn.proj.bias, blk.norm2.weight, blk.norm2.bias,
                           blk.mlp.linear_fc1.weight, blk.mlp.linear_fc1.bias, blk.mlp.linear_fc2.weight,
                           blk.mlp.linear_fc2.bias, cos, sin, dt)
            if i in DEEPSTACK:
                m = v.deepstack_merger_list[DEEPSTACK.index(i)]
                y = F.layer_norm(x.reshape(-1, 4 * V_HIDDEN), (4 * V_HIDDEN,), m.norm.weight, m.norm.bias, 1e-6)
                deepstack.append(self.merge(m, y))
        m = v.merger
        y = F.layer_norm(x, (V_HIDDEN,), m.norm.weight, m.norm.bias, 1e-6).reshape(-1, 4 * V_HIDDEN)
        return self.merge(m, y), deepstack

    def merge(self, m, y):
        dt = self.dtype
        y = F.linear(y.to(dt), m.linear_fc1.weight.to(dt), m.linear_fc1.bias.to(dt))
        return F.linear(F.gelu(y), m.linear_fc2.weight.to(dt), m.linear_fc2.bias.to(dt))

    def position_embedding(self, gh, gw):
        table = self.m.model.visual.pos_embed.weight
        ys, xs = torch.linspace(0, GRID - 1, gh, device=table.device), torch.linspace(0, GRID - 1, gw, device=table.device)
        fy, fx = ys.long(), xs.long()
        cy, cx = (fy + 1).clamp(max=GRID - 1), (fx + 1).clamp(max=GRID - 1)
        dy, dx = (ys - fy)[:, None, None], (xs - fx)[None, :, None]
        pick = lambda a, c: table[(a[:, None] * GRID + c[None, :])]
        p = (1 - dy) * (1 - dx) * pick(fy, fx) + (1 - dy) * dx * pick(fy, cx) + dy * (1 - dx) * pick(cy, fx) + dy * dx * pick(cy, cx)
        return p.view(gh // 2, 2, gw // 2, 2, -1).permute(0, 2, 1, 3, 4).reshape(gh * gw, -1)

    def vision_rope(self, gh, gw):
        dev = self.m.model.visual.pos_embed.weight.device
        d = V_HIDDEN // V_HEADS
        inv = 1.0 / 10000 ** (torch.arange(0, d // 2, 2, device=dev).float() / (d // 2))
        order = lambda g: g.view(gh // 2, 2, gw // 2, 2).permute(0, 2, 1, 3).reshape(-1)
        row = order(torch.arange(gh, device=dev)[:, None].expand(gh, gw).contiguous())
        col = order(torch.arange(gw, device=dev)[None, :].expand(gh, gw).contiguous())
        angle = torch.cat([row[:, None] * inv, col[:, None] * inv], -1)
        angle = torch.cat([angle, angle], -1)
        return angle.cos(), angle.sin()


def vision_block(x, n1w, n1b, wqkv, bqkv, wo, bo, n2w, n2b, w1, b1, w2, b2, cos, sin, dtype):
    b, n, c = x.shape
    y = F.layer_norm(x, (c,), n1w, n1b, 1e-6).to(dtype)
    q, k, v = F.linear(y, wqkv.to(dtype), bqkv.to(dtype)).view(b, n, 3, V_HEADS, c // V_HEADS).permute(2, 0, 3, 1, 4)
    q, k = rotate(q.float(), cos, sin).to(dtype), rotate(k.float(), cos, sin).to(dtype)
    a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
    x = x + F.linear(a, wo.to(dtype), bo.to(dtype)).float()
    y = F.layer_norm(x, (c,), n2w, n2b, 1e-6).to(dtype)
    y = F.gelu(F.linear(y, w1.to(dtype), b1.to(dtype)), approximate="tanh")
    return x + F.linear(y, w2.to(dtype), b2.to(dtype)).float()


def self_check(work):
    """Agreement with Hugging Face's own forward on one picture batch and one text batch, fp32, random weights."""
    import pictures
    from tokenizers import Tokenizer
    tok = Tokenizer.from_file(f"{work}/tokenizer.json")
    model = build(tok).eval()
    with torch.no_grad():  # nothing may be zero or one by initialisation, and the logits must be far from uniform
        for p in model.parameters():
            p += torch.randn_like(p) * (0.1 if p.ndim < 2 or not p.any() else 0.0)
        model.model.language_model.embed_tokens.weight *= 10
    fast = Fast(model, compiled=False, dtype=torch.float32)
    images, ids, kinds, grid = pictures.picture_batch(tok, 0, 3, 4, 192)
    images, ids, kinds = torch.from_numpy(images), torch.from_numpy(ids), torch.from_numpy(kinds)
    pad = tok.token_to_id("<|image_pad|>")
    with torch.no_grad():
        loss, _, _ = fast.forward(ids, kinds, images, grid, pad)
        b, hh, ww, _ = images.shape
        gh, gw = hh // 16, ww // 16
        x = ((images.float() - 127.5) / 127.5).permute(0, 3, 1, 2).unsqueeze(1).expand(-1, 2, -1, -1, -1)
        x = x.reshape(b, 1, 2, 3, gh // 2, 2, 16, gw // 2, 2, 16).permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).reshape(-1, 1536)
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=x,
                    image_grid_thw=torch.tensor([[1, gh, gw]] * b),
                    mm_token_type_ids=(ids == pad).long()).logits
        ref = F.cross_entropy(out[:, :-1].reshape(-1, VOCAB), ids[:, 1:].reshape(-1), reduction="none").view(b, -1)
        a, r = (loss[:, :-1] - ref).abs().max().item(), ref.mean().item()
        loss, _, _ = fast.forward(ids, kinds)
        out = model(input_ids=ids.where(ids != pad, 0)).logits
        loss2, _, _ = fast.forward(ids.where(ids != pad, 0), kinds)
        t = (loss2[:, :-1] - F.cross_entropy(out[:, :-1].reshape(-1, VOCAB), ids.where(ids != pad, 0)[:, 1:].reshape(-1), reduction="none").view(b, -1)).abs().max().item()
    print(f"largest difference of a token's loss: pictures {a:.2e}, text {t:.2e} (mean loss {r:.2f})")
    assert a < 1e-3 and t < 1e-3


if __name__ == "__main__":
    import sys
    self_check(sys.argv[1])
