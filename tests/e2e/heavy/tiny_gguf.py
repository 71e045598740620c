"""Writes a model of the llama architecture with random weights: a few hundred kilobytes that llama.cpp loads and runs.

    python tiny_gguf.py PATH

Its vocabulary is the 256 bytes and the three tokens that llama.cpp wants besides, so that it can read any text; what it says is noise.
"""

import sys

import gguf
import numpy

EMBEDDING, HEADS, FEED_FORWARD, CONTEXT = 32, 2, 64, 512
CONTROL = ["<unk>", "<s>", "</s>"]
BYTES = ["<0x%02X>" % byte for byte in range(256)]


def main(path):
    random = numpy.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(EMBEDDING // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(CONTROL + BYTES)
    writer.add_token_scores([0.0] * (len(CONTROL) + len(BYTES)))
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    writer.add_token_types(kinds + [gguf.TokenType.BYTE] * len(BYTES))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)

    def tensor(name, *shape):
        writer.add_tensor(name, random.normal(0, 0.5, shape).astype(numpy.float32))

    vocabulary = len(CONTROL) + len(BYTES)
    tensor("token_embd.weight", vocabulary, EMBEDDING)
    tensor("output_norm.weight", EMBEDDING)
    tensor("output.weight", vocabulary, EMBEDDING)
    for name in ("attn_norm", "ffn_norm"):
        tensor("blk.0.%s.weight" % name, EMBEDDING)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        tensor("blk.0.%s.weight" % name, EMBEDDING, EMBEDDING)
    for name in ("ffn_gate", "ffn_up"):
        tensor("blk.0.%s.weight" % name, FEED_FORWARD, EMBEDDING)
    tensor("blk.0.ffn_down.weight", EMBEDDING, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(sys.argv[1])
