// Vocab to tokenizer.json and tokenizer_config.json.
#include "base/json.h"
#include "text/vocab.h"

namespace carat::text {
namespace {

constexpr const char* kSpaceMark = "\xe2\x96\x81";

Json replace(const char* what, const char* by) {
  return {{"type", "Replace"}, {"pattern", {{"String", what}}}, {"content", by}};
}

// Quotes, backslashes and control characters escaped, the rest as it is.
void append_string(std::string_view s, std::string* out) {
  constexpr char kHex[] = "0123456789abcdef";
  *out += '"';
  for (char c : s) {
    switch (c) {
      case '"':
        *out += "\\\"";
        break;
      case '\\':
        *out += "\\\\";
        break;
      case '\n':
        *out += "\\n";
        break;
      case '\r':
        *out += "\\r";
        break;
      case '\t':
        *out += "\\t";
        break;
      default:
        if (static_cast<uint8_t>(c) < 0x20) {
          *out += "\\u00";
          *out += kHex[c >> 4];
          *out += kHex[c & 15];
        } else {
          *out += c;
        }
    }
  }
  *out += '"';
}

void append_member(const char* key, const Json& value, std::string* out) {
  *out += "  ";
  append_string(key, out);
  *out += ": " + to_json_text(value) + ",\n";
}

}  // namespace

std::string to_tokenizer_json(const Vocab& vocab) {
  Json added = Json::array();
  for (int32_t id = 0; id < vocab.size(); ++id) {
    if (vocab.types[id] != TokenType::kControl) continue;
    added.push_back({{"id", id},
                     {"content", std::string(vocab.piece(id))},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  Json decoders = Json::array();
  decoders.push_back(replace(kSpaceMark, " "));
  decoders.push_back({{"type", "ByteFallback"}});
  decoders.push_back({{"type", "Fuse"}});

  std::string out = "{\n";
  append_member("version", "1.0", &out);
  append_member("truncation", nullptr, &out);
  append_member("padding", nullptr, &out);
  append_member("added_tokens", added, &out);
  append_member("normalizer", replace(" ", kSpaceMark), &out);
  append_member("pre_tokenizer",
                {{"type", "Split"},
                 {"pattern", {{"String", " "}}},
                 {"behavior", "MergedWithPrevious"},
                 {"invert", false}},
                &out);
  append_member("post_processor", nullptr, &out);
  append_member("decoder", {{"type", "Sequence"}, {"decoders", decoders}}, &out);
  out += "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": ";
  out += vocab.special.unk == kNoToken ? "null" : "\"<unk>\"";
  out += ",\n    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n";
  out += "    \"fuse_unk\": true,\n    \"byte_fallback\": ";
  out += vocab.byte_tokens.empty() ? "false" : "true";
  out += ",\n    \"ignore_merges\": false,\n    \"vocab\": {";
  for (int32_t id = 0; id < vocab.size(); ++id) {
    out += id == 0 ? "\n      " : ",\n      ";
    append_string(vocab.piece(id), &out);
    out += ": " + std::to_string(id);
  }
  out += "\n    },\n    \"merges\": [";
  for (size_t i = 0; i < vocab.merges.size(); ++i) {
    out += i == 0 ? "\n      [" : ",\n      [";
    append_string(vocab.piece(vocab.merges[i].left), &out);
    out += ", ";
    append_string(vocab.piece(vocab.merges[i].right), &out);
    out += "]";
  }
  return out + "\n    ]\n  }\n}\n";
}

std::string to_tokenizer_config_json(const Vocab& vocab) {
  Json config = {{"tokenizer_class", "GemmaTokenizer"},
                 {"backend", "tokenizers"},
                 {"padding_side", "left"},
                 {"clean_up_tokenization_spaces", false}};
  for (const SpecialToken& token : special_tokens()) {
    if (vocab.special.*token.id != kNoToken) config[token.config_key] = token.text;
  }
  return to_json_text(config, 2) + "\n";
}

}  // namespace carat::text
