// tokenizer.json to Vocab.
#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_reader.h"
#include "text/vocab.h"

namespace carat::text {
namespace {

constexpr int64_t kMaxId = int64_t{1} << 22;
constexpr int64_t kMaxFile = int64_t{1} << 29;
constexpr std::string_view kSpaceMark = "\xe2\x96\x81";

// The pieces in the order of the file, which need not be that of the ids.
struct Pieces {
  struct Entry {
    uint32_t id, offset, size;
  };
  std::string arena;
  std::vector<Entry> entries;

  void add(int64_t id, std::string_view piece) {
    if (arena.size() + piece.size() > (size_t{1} << 30))
      throw Error("the vocabulary's text is too large");
    entries.push_back({static_cast<uint32_t>(id), static_cast<uint32_t>(arena.size()),
                       static_cast<uint32_t>(piece.size())});
    arena.append(piece);
  }
  std::string_view text(const Entry& e) const {
    return std::string_view(arena).substr(e.offset, e.size);
  }
};

[[noreturn]] void unsupported(const char* part, std::string expected, const Json& got) {
  std::string text = to_json_text(got);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  throw Error({std::string("this tokenizer is not of Gemma 4's kind: unsupported ") + part,
               {},
               part,
               std::move(expected),
               std::move(text),
               {}});
}

// A sequence of one step counts as that step.
const Json& only_step(const Json& j, const char* list) {
  if (j.is_object() && get_string(j, "type", "") == "Sequence" && j.contains(list) &&
      j[list].is_array() && j[list].size() == 1) {
    return j[list][0];
  }
  return j;
}

void check_normalizer(const Json& whole) {
  const Json& j = only_step(whole, "normalizers");
  const bool good = j.is_object() && get_string(j, "type", "") == "Replace" &&
                    find(j, "pattern") != nullptr && j["pattern"].is_object() &&
                    get_string(j["pattern"], "String", "") == " " &&
                    get_string(j, "content", "") == kSpaceMark;
  if (!good) unsupported("normalizer", "Replace \" \" by \"\u2581\"", whole);
}

void check_pre_tokenizer(const Json& whole) {
  if (whole.is_null()) return;
  const Json& j = only_step(whole, "pretokenizers");
  // After the normalizer no space is left, so this split does nothing.
  const bool good = j.is_object() && get_string(j, "type", "") == "Split" &&
                    find(j, "pattern") != nullptr && j["pattern"].is_object() &&
                    get_string(j["pattern"], "String", "") == " ";
  if (!good) unsupported("pre_tokenizer", "null or Split on \" \"", whole);
}

void read_added_tokens(JsonReader* in, Pieces* pieces) {
  in->begin_array();
  while (in->next_element()) {
    int64_t id = -1;
    std::optional<std::string> content;
    in->begin_object();
    for (std::string_view key; in->next_key(&key);) {
      if (key == "id") {
        id = in->integer(0, kMaxId);
      } else if (key == "content") {
        content = in->string();
      } else {
        in->skip();
      }
    }
    if (id < 0 || !content) in->fail("an added token needs \"id\" and \"content\"");
    pieces->add(id, *content);
  }
}

struct Model {
  bool byte_fallback = false;
  std::optional<JsonReader> merges;  // where they stand: read when all pieces are known
};

Model read_model(JsonReader* in, Pieces* pieces) {
  Model model;
  bool has_vocab = false;
  in->begin_object();
  for (std::string_view key; in->next_key(&key);) {
    using Kind = JsonReader::Kind;
    if (key == "type") {
      const std::string_view type = in->string();
      if (type != "BPE") in->fail("unsupported kind of tokenizer model", "BPE", std::string(type));
    } else if (key == "byte_fallback") {
      model.byte_fallback = in->boolean();
    } else if (key == "ignore_merges") {
      if (in->boolean()) in->fail("ignore_merges is not supported", "false", "true");
    } else if (key == "continuing_subword_prefix" || key == "end_of_word_suffix") {
      if (in->peek() == Kind::kNull) {
        in->null();
      } else if (!in->string().empty()) {
        in->fail("prefixes and suffixes of words are not supported", "null");
      }
    } else if (key == "vocab") {
      if (has_vocab) in->fail("\"vocab\" appears twice");
      has_vocab = true;
      in->begin_object();
      std::string piece;
      for (std::string_view text; in->next_key(&text);) {
        piece.assign(text);
        pieces->add(in->integer(0, kMaxId), piece);
      }
    } else if (key == "merges") {
      if (model.merges) in->fail("\"merges\" appears twice");
      model.merges = *in;
      in->skip();
    } else {
      in->skip();
    }
  }
  if (!has_vocab || !model.merges) in->fail("the tokenizer model needs \"vocab\" and \"merges\"");
  return model;
}

// Ids must be 0..n-1. A token may be listed twice (vocabulary and added tokens) with one text.
void add_in_order(Pieces* pieces, VocabBuilder* builder) {
  const auto by_id = [](const auto& a, const auto& b) { return a.id < b.id; };
  if (!std::is_sorted(pieces->entries.begin(), pieces->entries.end(), by_id)) {
    std::stable_sort(pieces->entries.begin(), pieces->entries.end(), by_id);
  }
  int64_t n = 0;
  const Pieces::Entry* last = nullptr;
  for (const Pieces::Entry& e : pieces->entries) {
    if (last != nullptr && e.id == last->id) {
      if (pieces->text(e) != pieces->text(*last)) {
        throw Error({"one token id has two texts",
                     {},
                     "token " + std::to_string(e.id),
                     std::string(pieces->text(*last)),
                     std::string(pieces->text(e)),
                     {}});
      }
      continue;
    }
    if (e.id != n) {
      throw Error({"the token ids have a hole",
                   {},
                   "token " + std::to_string(n),
                   {},
                   "the next id is " + std::to_string(e.id),
                   {}});
    }
    builder->add_piece(pieces->text(e));
    last = &e;
    ++n;
  }
}

void read_merges(JsonReader in, VocabBuilder* builder) {
  std::string left;
  in.begin_array();
  while (in.next_element()) {
    if (in.peek() == JsonReader::Kind::kString) {
      builder->add_merge(in.string());
      continue;
    }
    in.begin_array();
    if (!in.next_element()) in.fail("a merge needs two pieces");
    left.assign(in.string());
    if (!in.next_element()) in.fail("a merge needs two pieces");
    builder->add_merge(left, in.string());
    if (in.next_element()) in.fail("a merge needs two pieces");
  }
}

}  // namespace

Vocab vocab_from_tokenizer_json(std::string_view text) {
  JsonReader in(text);
  Pieces pieces;
  std::optional<Model> model;
  bool has_normalizer = false;
  in.begin_object();
  for (std::string_view key; in.next_key(&key);) {
    if (key == "added_tokens") {
      read_added_tokens(&in, &pieces);
    } else if (key == "normalizer") {
      check_normalizer(parse_json(in.raw()));
      has_normalizer = true;
    } else if (key == "pre_tokenizer") {
      check_pre_tokenizer(parse_json(in.raw()));
    } else if (key == "model") {
      if (model) in.fail("\"model\" appears twice");
      model = read_model(&in, &pieces);
    } else {
      in.skip();
    }
  }
  in.end();
  if (!model) throw Error({"not a tokenizer.json: no \"model\"", {}, {}, {}, {}, {}});
  if (!has_normalizer) unsupported("normalizer", "Replace \" \" by \"\u2581\"", Json());

  VocabBuilder builder;
  add_in_order(&pieces, &builder);
  pieces = Pieces{};
  read_merges(*model->merges, &builder);
  Vocab vocab = builder.finish();
  if (!model->byte_fallback) {
    for (int32_t id : vocab.byte_tokens) vocab.types[id] = TokenType::kNormal;
    vocab.byte_tokens.clear();
  }
  return vocab;
}

Vocab read_tokenizer_json(const std::string& path) {
  try {
    const MappedFile file(path);
    const auto bytes = file.bytes();
    if (static_cast<int64_t>(bytes.size()) > kMaxFile) {
      throw Error({"the file is too large for a tokenizer",
                   {},
                   {},
                   {},
                   std::to_string(bytes.size()) + " bytes",
                   {}});
    }
    return vocab_from_tokenizer_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  } catch (const Error& e) {
    throw e.with_file(path);
  }
}

}  // namespace carat::text
