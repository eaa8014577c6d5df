#include "krait/io/sharded.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <unordered_set>

#include "krait/io/json.h"
#include "krait/io/mapped_file.h"
#include "krait/io/problems.h"

namespace krait::io {
namespace {

namespace fs = std::filesystem;

// Reasons to refuse a shard's name: it comes from the file and must not lead out of the folder.
bool stays_inside(const std::string& name) {
  const fs::path p(name);
  return !name.empty() && name.find('\0') == std::string::npos && p.is_relative() && p.has_filename() &&
         std::ranges::none_of(p, [](const fs::path& part) { return part == ".." || part == "."; });
}

using Shards = std::map<std::string, std::map<std::string, Tensor>>;  // file -> tensors

Shards open_shards(const fs::path& folder, const Json& weight_map, const ShardReader& read, Problems& problems) {
  Shards shards;
  std::unordered_set<std::string> tried;
  for (const auto& [name, file] : weight_map.items()) {
    if (!file.is_string()) {
      problems.add(fmt::format("the shard of {} is no name", quote_name(name)));
      continue;
    }
    const std::string& shard = file.as_string();
    if (!tried.insert(shard).second) continue;
    if (!stays_inside(shard)) {
      problems.add(fmt::format("shard name {} leads out of the folder", quote_name(shard)));
      continue;
    }
    try {
      shards.emplace(shard, read(folder / shard));
    } catch (const Error& e) {
      problems.add(std::string(inner_message(e)));
    }
  }
  return shards;
}

Json parse_index(const fs::path& index, const std::string& op) {
  Json json = Json::parse(MappedFile::open(index)->text(), index.string());
  const Json* weight_map = json.find("weight_map");
  if (weight_map == nullptr || !weight_map->is_object()) {
    fail_data(fmt::format("[{}] {}: there is no weight_map", op, index.string()));
  }
  return json;
}

}  // namespace

std::map<std::string, Tensor> read_sharded(const fs::path& index, const std::string& op, const ShardReader& read) {
  const Json json = parse_index(index, op);
  const Json& weight_map = json.at("weight_map");
  Problems problems;
  Shards shards = open_shards(index.parent_path(), weight_map, read, problems);
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, file_name] : weight_map.items()) {
    const auto shard = file_name.is_string() ? shards.find(file_name.as_string()) : shards.end();
    if (shard == shards.end()) continue;  // named already
    const auto node = shard->second.extract(name);
    if (node.empty()) {
      problems.add(fmt::format("{} is not in {}, where the index has it", quote_name(name), shard->first));
    } else {
      tensors.emplace(name, node.mapped());
    }
  }
  for (const auto& [file_name, left] : shards) {
    for (const auto& item : left) {
      problems.add(fmt::format("{} in {} is not in the index{}", quote_name(item.first), file_name,
                               tensors.contains(item.first) ? " for this file" : ""));
    }
  }
  problems.throw_if_any(op, index.string());
  return tensors;
}

}  // namespace krait::io
