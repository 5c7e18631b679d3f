"""Small random T5, CLIP and CLAP, whole and saved as those on the hub are, with tokenizers of a few words."""

import torch

WORDS = ("the", "sound", "of", "dog", "rain", "clock", "tick", "a", "nearby", "cat")
KINDS = ("t5-large", "flan-t5", "clip", "clap")
DIMS = {"t5-large": 20, "flan-t5": 20, "clip": 24, "clap": 16}


def save(kind, folder, **how):
    """Write a model of `kind` into `folder`; keywords go to its `save_pretrained`."""
    with torch.random.fork_rng([]):
        torch.manual_seed(len(kind))
        model, tokenizer = {"clip": _clip, "clap": _clap}.get(kind, _t5)(kind)
        for parameter in model.parameters():  # biases and norms too, so that each is heard
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder, **how)
    tokenizer.save_pretrained(folder)
    return folder


def _t5(kind):
    from transformers import T5Config, T5ForConditionalGeneration, T5TokenizerFast

    pieces = [
        "<pad>",
        "</s>",
        "<unk>",
        "▁",
        *(f"▁{w}" for w in WORDS),
        ",",
        *"abcdefghijklmnopqrstuvwxyz<>-_",
    ]
    vocab = [(piece, -float(place)) for place, piece in enumerate(pieces)]
    tokenizer = T5TokenizerFast(vocab=vocab, extra_ids=4)
    config = T5Config(
        vocab_size=len(tokenizer) + 3,  # the table on the hub has more rows than there are words
        d_model=20,
        d_kv=5,
        d_ff=32,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu" if kind == "flan-t5" else "relu",
        tie_word_embeddings=kind != "flan-t5",
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config), tokenizer


def _clip(kind):
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz,<>-_0123456789"
    pieces, merges = [*letters, *(f"{letter}</w>" for letter in letters)], []
    for word in WORDS:
        _merge([*word[:-1], f"{word[-1]}</w>"], pieces, merges)
    vocab = {piece: place for place, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = CLIPTokenizerFast(vocab=vocab, merges=merges)
    layers = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {
        "vocab_size": len(vocab),
        "hidden_size": 24,
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **layers,
    }
    vision = {"hidden_size": 16, "image_size": 8, "patch_size": 4, **layers}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)), tokenizer


def _clap(kind):
    from transformers import ClapConfig, ClapModel, RobertaTokenizerFast

    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces, merges = [*"abcdefghijklmnopqrstuvwxyz,<>-_0123456789TĠ"], []
    for word in WORDS:
        _merge([*f"Ġ{word}"], pieces, merges)
    vocab = {piece: place for place, piece in enumerate([*specials, *pieces, "<mask>"])}
    tokenizer = RobertaTokenizerFast(vocab=vocab, merges=merges)
    text = {
        "vocab_size": len(vocab),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "projection_dim": 8,
    }
    audio = {
        "spec_size": 32,
        "num_mel_bins": 8,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "window_size": 4,
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [1, 2],
        "projection_dim": 8,
    }
    return ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=8)), tokenizer


def _merge(symbols, pieces, merges):
    """Add the merges that make one piece of a word's symbols, from the left."""
    while len(symbols) > 1:
        pair = (symbols[0], symbols[1])
        if pair not in merges:
            merges.append(pair)
            pieces.append("".join(pair))
        symbols = ["".join(pair), *symbols[2:]]
