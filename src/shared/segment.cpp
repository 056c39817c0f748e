#include "shared/segment.hpp"

#include <algorithm>
#include <cerrno>
#include <new>

namespace rtpool::shared {

namespace {

// Touching comes first, since only it can bring huge pages. A file in /dev/shm is never left without its memory.
int make_resident(os::SharedMemory& os, int fd, void* base, std::size_t bytes, const SegmentOptions& options) noexcept {
  const bool named = options.name[0] != '\0';
  if (options.prefault) {
    const int error = os.prefault(base, bytes, true);
    if (error == EFAULT) return named ? ENOSPC : ENOMEM;
    if (error != ENOSYS) return error;
  }
  return named || options.prefault ? os.set_aside(fd, bytes) : 0;
}

}  // namespace

int Segment::create(os::SharedMemory& os, const SegmentOptions& options, Segment* out) noexcept {
  Geometry geometry;
  if (!geometry_of(options.size, options.page, &geometry)) return EINVAL;
  if (options.name[0] != '\0' && !os::is_segment_name(options.name)) return EINVAL;
  os::SegmentId id;
  if (const int error = os.random(id.bytes, sizeof id.bytes); error != 0) return error;
  int fd = -1;
  const int made = options.name[0] == '\0' ? os.create_nameless(id, geometry.file_bytes, options.page, &fd)
                                           : os.create_named(geometry.file_bytes, &fd);
  if (made != 0) return made;
  void* base = nullptr;
  int error = os.map(fd, geometry.file_bytes, options.page, true, &base);
  if (error == 0) {
    if (options.advise_huge) out->advice_error_ = os.advise_huge(base, geometry.file_bytes);
    error = make_resident(os, fd, base, geometry.file_bytes, options);
    if (error != 0) (void)os.unmap(base, geometry.file_bytes);
  }
  if (error != 0) {
    os.close(fd);
    return error;
  }
  Header* const header = new (base) Header{};
  write_header(&header->made, geometry, static_cast<std::uint32_t>(options.page), id, options.name, os.seconds());
  out->os_ = &os;
  out->fd_ = fd;
  out->base_ = static_cast<char*>(base);
  out->geometry_ = geometry;
  out->header_copy_ = header->made;
  return 0;
}

int Segment::open(os::SharedMemory& os, int fd, Segment* out) noexcept {
  os::SegmentFile file;
  int error = os.describe(fd, &file);
  if (error == 0 && !file.regular) error = EBADMSG;
  // A memory file has no place in the file system: who has the descriptor was given it.
  if (error == 0 && !file.sealed && (file.user != os.user() || (file.mode & 077) != 0)) error = EACCES;
  if (error == 0 && file.bytes < k_page) error = EBADMSG;
  void* base = nullptr;
  if (error == 0) error = os.map(fd, file.bytes, file.page, true, &base);
  if (error == 0 && !read_header(&static_cast<const Header*>(base)->made, file.bytes, &out->header_copy_, &out->geometry_)) {
    (void)os.unmap(base, file.bytes);
    error = EBADMSG;
  }
  if (error == 0 && out->geometry_.file_bytes != file.bytes) {
    (void)os.unmap(base, file.bytes);
    error = EBADMSG;
  }
  if (error != 0) {
    os.close(fd);
    return error;
  }
  out->os_ = &os;
  out->fd_ = fd;
  out->base_ = static_cast<char*>(base);
  return 0;
}

bool Segment::is_in(os::SharedMemory& os, int fd, const os::SegmentId& id) noexcept {
  os::SegmentFile file;
  if (os.describe(fd, &file) != 0 || !file.regular || file.bytes < k_page || file.page > k_page) return false;
  void* base = nullptr;
  if (os.map(fd, k_page, k_page, false, &base) != 0) return false;
  MadeHeader header;
  Geometry geometry;
  const bool is = read_header(&static_cast<const Header*>(base)->made, file.bytes, &header, &geometry) && header.id == id;
  (void)os.unmap(base, k_page);
  return is;
}

int Segment::map_read_only(bool prefault) noexcept {
  if (read_only_ != nullptr) return 0;
  void* base = nullptr;
  if (const int error = os_->map(fd_, geometry_.file_bytes, header_copy_.page, false, &base); error != 0) return error;
  if (prefault) (void)os_->prefault(base, geometry_.file_bytes, false);
  std::atomic_ref<char*>(read_only_).store(static_cast<char*>(base), std::memory_order_release);
  return 0;
}

std::size_t Segment::held_data() const noexcept {
  os::SegmentFile file;
  std::size_t past = 0;
  std::size_t found = 0;
  // A program that closes all descriptors has closed this one, too, and may have another file there.
  const bool known = os_->describe(fd_, &file) == 0 && file.bytes == geometry_.file_bytes &&
                     (file.page > k_page || os_->held_past_end(fd_, file.bytes, &past) == 0);
  if (!known) return os_->resident(data(), geometry_.data_bytes, &found) == 0 ? found : 0;
  if (file.held >= geometry_.file_bytes + past) return geometry_.data_bytes;
  // Neither the tables nor what the kernel's last page, or a huge one, has beyond the end of the file are data.
  if (os_->resident(base_, geometry_.data_offset, &found) != 0) return 0;
  const std::size_t other = past + found;
  return std::min(file.held - std::min(file.held, other), std::size_t{geometry_.data_bytes});
}

void Segment::unmap() noexcept {
  if (base_ != nullptr) (void)os_->unmap(base_, geometry_.file_bytes);
  if (read_only_ != nullptr) (void)os_->unmap(read_only_, geometry_.file_bytes);
  if (fd_ >= 0) os_->close(fd_);
  base_ = nullptr;
  read_only_ = nullptr;
  fd_ = -1;
}

}  // namespace rtpool::shared
