//! What to type so that huge pages are there: they must be reserved before memory is in pieces, best at boot.

use crate::arena::{GIGANTIC_PAGE_BYTES, HUGE_PAGE_BYTES};

/// Sizes of pages that can be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 2 MiB.
    Huge2M,
    /// 1 GiB.
    Huge1G,
}

impl PageSize {
    /// Its bytes.
    pub fn bytes(self) -> usize {
        match self {
            PageSize::Huge2M => HUGE_PAGE_BYTES,
            PageSize::Huge1G => GIGANTIC_PAGE_BYTES,
        }
    }

    /// Its folder below `/sys/kernel/mm/hugepages`.
    pub fn sysfs_name(self) -> &'static str {
        match self {
            PageSize::Huge2M => "hugepages-2048kB",
            PageSize::Huge1G => "hugepages-1048576kB",
        }
    }

    /// Pages that hold `bytes`.
    pub fn pages_for(self, bytes: usize) -> usize {
        bytes.div_ceil(self.bytes())
    }
}

/// A command that reserves `pages` (in all, not in addition) until the next boot. It may reserve fewer when memory is in pieces.
pub fn command_now(size: PageSize, pages: usize) -> String {
    format!("echo {pages} > /sys/kernel/mm/hugepages/{}/nr_hugepages", size.sysfs_name())
}

/// What reserves `pages` at every boot: a command for pages of 2 MiB, kernel parameters for pages of 1 GiB.
pub fn at_boot(size: PageSize, pages: usize) -> String {
    match size {
        PageSize::Huge2M => format!("echo vm.nr_hugepages={pages} > /etc/sysctl.d/60-tactus-hugepages.conf"),
        PageSize::Huge1G => format!("add to the kernel's command line: hugepagesz=1G hugepages={pages}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_name_the_right_file_and_count() {
        assert_eq!(PageSize::Huge2M.pages_for((256 << 20) + 1), 129);
        assert_eq!(command_now(PageSize::Huge2M, 129), "echo 129 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
        assert_eq!(command_now(PageSize::Huge1G, 2), "echo 2 > /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages");
        assert!(at_boot(PageSize::Huge2M, 129).contains("vm.nr_hugepages=129"));
        assert!(at_boot(PageSize::Huge1G, 2).ends_with("hugepagesz=1G hugepages=2"));
    }
}
