#include "shared/layout.hpp"

#include <cstring>

#include "base/bits.hpp"

namespace rtpool::shared {
namespace {

constexpr std::size_t k_checked = offsetof(MadeHeader, check_sum);

// FNV-1a: finds damage, not malice; malice is met by bounding everything that is read later.
std::uint64_t sum_of(const unsigned char* bytes, std::size_t count) noexcept {
  std::uint64_t sum = 0xcbf29ce484222325;
  for (std::size_t i = 0; i < count; ++i) sum = (sum ^ bytes[i]) * 0x100000001b3;
  return sum;
}

}  // namespace

bool geometry_of(std::uint64_t size, std::uint64_t page, Geometry* out) noexcept {
  if (size == 0 || size > k_largest_data || page < k_page || page > (std::uint64_t{1} << 30) || !base::is_power_of_two(page)) {
    return false;
  }
  Geometry g;
  g.granule_shift = base::log2_floor(k_page);
  while (base::divide_up(size, g.granule_bytes()) > k_most_granules) ++g.granule_shift;
  g.data_bytes = base::align_up(size, g.granule_bytes());
  g.granules = static_cast<std::uint32_t>(g.data_bytes >> g.granule_shift);
  const std::uint64_t records = g.data_bytes / k_bytes_per_record;
  g.records = static_cast<std::uint32_t>(records < k_least_records ? k_least_records
                                         : records > k_most_records ? k_most_records : records);
  g.processes_offset = k_page;
  g.granules_offset = g.processes_offset + k_processes * sizeof(ProcessSlot);
  g.records_offset = base::align_up(g.granules_offset + g.granules * sizeof(Word), k_page);
  // The data begin on a granule, and from 2 MiB on where a huge page begins.
  const std::uint64_t alignment = g.data_bytes >= (std::uint64_t{16} << 20) ? std::uint64_t{2} << 20 : k_page;
  g.data_offset = base::align_up(g.records_offset + g.records * sizeof(Record), alignment);
  g.file_bytes = base::align_up(g.data_offset + g.data_bytes, page);
  *out = g;
  return true;
}

void write_header(MadeHeader* header, const Geometry& geometry, std::uint32_t page, const os::SegmentId& id, const char* name,
                  std::uint64_t created) noexcept {
  header->magic = k_magic;
  header->version = k_version;
  header->page = page;
  header->id = id;
  header->data_bytes = geometry.data_bytes;
  header->file_bytes = geometry.file_bytes;
  header->created = created;
  std::memset(header->name, 0, sizeof header->name);
  std::strncpy(header->name, name, os::k_segment_name_length);
  header->check_sum = sum_of(reinterpret_cast<const unsigned char*>(header), k_checked);
}

bool read_header(const MadeHeader* header, std::size_t file_bytes, MadeHeader* copy, Geometry* geometry) noexcept {
  if (file_bytes < k_page) return false;
  std::memcpy(copy, header, sizeof *copy);
  if (copy->magic != k_magic || copy->version != k_version || copy->name[os::k_segment_name_length] != '\0') return false;
  if (copy->check_sum != sum_of(reinterpret_cast<const unsigned char*>(copy), k_checked)) return false;
  if (!geometry_of(copy->data_bytes, copy->page, geometry)) return false;
  return geometry->data_bytes == copy->data_bytes && geometry->file_bytes == copy->file_bytes &&
         geometry->file_bytes <= file_bytes;
}

bool same_header(const MadeHeader* header, const MadeHeader& copy) noexcept {
  return std::memcmp(header, &copy, sizeof copy) == 0;
}

}  // namespace rtpool::shared
