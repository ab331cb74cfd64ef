//! Machines that are folders.

use std::path::Path;

use dataplane::ports::netdev::Offloads;
use dataplane::ports::xdp_features::XdpFeatures;

use super::machine::Machine;
use super::nic::Driver;
use super::{Finding, Net, Purpose, Report, Status, examine, parse_net};

const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 FILES                files
Max locked memory         8388608              LOCKED               bytes
";

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A machine of four CPUs on which all is fine for two engine cores with 256 MiB each.
fn tuned() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "262\n"),
        ("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0\n"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
        ("sys/devices/system/cpu/online", "0-3\n"),
        ("sys/devices/system/cpu/isolated", "2-3\n"),
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n"),
        ("sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "performance\n"),
        ("sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "performance\n"),
        ("proc/irq/7/effective_affinity_list", "0\n"),
        ("proc/irq/11/effective_affinity_list", "1\n"),
        ("proc/irq/default_smp_affinity", "f\n"),
        ("proc/sys/kernel/sched_rt_runtime_us", "-1\n"),
        ("proc/sys/kernel/io_uring_disabled", "0\n"),
        ("proc/sys/kernel/osrelease", "6.12.3-amd64\n"),
        ("proc/sys/net/core/rmem_max", "4194304\n"),
        ("proc/sys/net/core/wmem_max", "8388608\n"),
        ("proc/net/protocols", "protocol  size sockets\nXDP        960      0\nTCP       2304     12\n"),
        ("proc/1/comm", "systemd\n"),
        ("proc/self/status", "Name:\ttactus\nCapEff:\t0000000000000000\n"),
        ("proc/self/limits", &LIMITS.replace("FILES", "65536").replace("LOCKED", "unlimited")),
        ("dev/net/tun", ""),
        ("sys/class/net/eth1/operstate", "up\n"),
        ("sys/class/net/eth1/mtu", "1500\n"),
    ] {
        write(root.path(), path, text);
    }
    root
}

fn purpose(net: &str) -> Purpose {
    Purpose { net: parse_net(net).unwrap(), engine: vec![2, 3], memory_bytes: 256 << 20, max_sessions: 5000 }
}

fn good_driver() -> Driver {
    Driver {
        name: Some("ice".into()),
        offloads: Some(Offloads { lro: false, rx_vlan: false }),
        queues: Some((2, 2, true)),
        xdp: Some(XdpFeatures { native: true, zero_copy: true }),
    }
}

fn report(root: &Path, net: &str) -> Report {
    examine(&Machine::new(root), &good_driver(), &purpose(net))
}

fn untuned(report: &Report) -> Vec<&Finding> {
    report.findings.iter().filter(|finding| finding.status == Status::Untuned).collect()
}

#[test]
fn a_tuned_machine_is_fine_for_every_kind_of_network() {
    let root = tuned();
    for (net, own) in [("kernel", "send-buffers"), ("af_xdp:eth1", "driver-xdp"), ("tap:tap0", "tap")] {
        let report = report(root.path(), net);
        assert!(report.tuned, "{net}:\n{}", report.text());
        assert!(report.findings.iter().any(|finding| finding.subject == own), "{net} looks at {own}");
        assert!(report.findings.iter().all(|finding| finding.lost.is_empty() && finding.fix.is_empty() && !finding.found.is_empty()));
        assert!(report.text().ends_with("This machine is tuned.\n"));
    }
}

/// Each change of a file makes one subject untuned, with a fix that contains the text.
#[test]
fn everything_that_is_untuned_is_seen_alone_and_its_fix_fits() {
    let cases = [
        ("kernel", "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "255", "huge-pages", "echo 256 > /sys/kernel/mm"),
        ("af_xdp:eth1", "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "261", "huge-pages", "echo 262 > /sys/kernel/mm"),
        ("kernel", "proc/self/limits", &LIMITS.replace("FILES", "65536").replace("LOCKED", "8388608"), "locked-memory", "LimitMEMLOCK"),
        ("kernel", "proc/self/limits", &LIMITS.replace("FILES", "4096").replace("LOCKED", "unlimited"), "open-files", "ulimit -n 10256"),
        ("kernel", "sys/devices/system/cpu/isolated", "3\n", "isolated-cpus", "isolcpus=domain,managed_irq,2,3 nohz_full=2,3"),
        ("kernel", "sys/devices/system/cpu/isolated", "\n", "isolated-cpus", "rcu_nocbs=2,3"),
        ("kernel", "proc/irq/11/effective_affinity_list", "3\n", "interrupts", "for irq in 11; do echo 0,1 > /proc/irq/$irq"),
        ("kernel", "proc/77/comm", "irqbalance\n", "irqbalance", "IRQBALANCE_BANNED_CPULIST=\"2,3\""),
        ("kernel", "sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "schedutil\n", "cpu-governor", "for cpu in 3; do"),
        ("kernel", "proc/sys/kernel/sched_rt_runtime_us", "950000\n", "real-time-throttling", "kernel.sched_rt_runtime_us=-1"),
        ("kernel", "proc/sys/kernel/io_uring_disabled", "2\n", "io-uring", "kernel.io_uring_disabled=0"),
        ("kernel", "proc/sys/kernel/io_uring_disabled", "1\n", "io-uring", "kernel.io_uring_disabled=0"),
        ("kernel", "proc/sys/net/core/wmem_max", "212992\n", "send-buffers", "net.core.wmem_max=4194304"),
        ("kernel", "proc/sys/net/core/rmem_max", "212992\n", "receive-buffers", "net.core.rmem_max=4194304"),
        ("af_xdp:eth1", "proc/net/protocols", "protocol  size\nTCP  1\n", "af-xdp", "CONFIG_XDP_SOCKETS"),
        ("af_xdp:eth1", "proc/sys/kernel/osrelease", "5.4.0-generic\n", "af-xdp", "5.9"),
        ("af_xdp:eth1", "sys/class/net/eth1/operstate", "down\n", "interface", "ip link set dev eth1 up"),
        ("af_xdp:eth1", "sys/class/net/eth1/mtu", "9000\n", "interface", "ip link set dev eth1 mtu 1500"),
    ];
    for (net, path, text, subject, fix) in cases {
        let root = tuned();
        write(root.path(), path, text);
        let report = report(root.path(), net);
        let found = untuned(&report);
        assert_eq!(found.iter().map(|finding| finding.subject).collect::<Vec<_>>(), [subject], "{path}: {text}");
        assert!(!report.tuned && !found[0].lost.is_empty());
        assert!(found[0].fix.iter().any(|line| line.contains(fix)), "{path}: {:?}", found[0].fix);
        let printed = report.text();
        assert!(printed.contains("UNTUNED") && printed.contains("lost: ") && printed.contains(fix), "{printed}");
    }
}

#[test]
fn what_the_driver_tells_counts() {
    let root = tuned();
    let with = |change: fn(&mut Driver)| {
        let mut driver = good_driver();
        change(&mut driver);
        examine(&Machine::new(root.path()), &driver, &purpose("af_xdp:eth1"))
    };
    for (change, subject, fix) in [
        ((|driver| driver.queues = Some((4, 4, true))) as fn(&mut Driver), "queues", "ethtool -L eth1 combined 2"),
        (|driver| driver.queues = Some((1, 1, true)), "queues", "ethtool -L eth1 combined 2"),
        (|driver| driver.queues = Some((2, 1, false)), "queues", "ethtool -L eth1 rx 2 tx 2"),
        (|driver| driver.offloads = Some(Offloads { lro: true, rx_vlan: true }), "offloads", "ethtool -K eth1 lro off"),
        (|driver| driver.xdp = Some(XdpFeatures { native: false, zero_copy: false }), "driver-xdp", "XDP_REDIRECT"),
    ] {
        let report = with(change);
        let found = untuned(&report);
        assert_eq!(found.iter().map(|finding| finding.subject).collect::<Vec<_>>(), [subject]);
        assert!(found[0].fix[0].contains(fix), "{:?}", found[0].fix);
    }
    assert!(with(|driver| driver.xdp = Some(XdpFeatures { native: true, zero_copy: false })).tuned);
    // What nobody tells is no reason to complain.
    assert!(with(|driver| *driver = Driver::default()).tuned);
    let missing = report(root.path(), "af_xdp:eth9");
    assert_eq!(untuned(&missing).iter().map(|finding| finding.subject).collect::<Vec<_>>(), ["interface"]);
}

#[test]
fn gigantic_pages_count_where_buffers_fit_them() {
    let root = tuned();
    write(root.path(), "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0");
    let fine = |gigantic: &str, memory_bytes: u64| {
        write(root.path(), "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", gigantic);
        examine(&Machine::new(root.path()), &good_driver(), &Purpose { memory_bytes, ..purpose("kernel") }).tuned
    };
    assert!(fine("2", 1 << 30));
    assert!(!fine("1", 1 << 30), "two cores, one page");
    assert!(fine("4", 2 << 30));
    assert!(!fine("2", 256 << 20), "256 MiB do not go on a page of 1 GiB");
}

#[test]
fn a_machine_with_no_cpu_to_spare_is_told_so_and_not_to_move_interrupts() {
    let root = tuned();
    write(root.path(), "sys/devices/system/cpu/online", "2-3\n");
    write(root.path(), "sys/devices/system/cpu/isolated", "\n");
    write(root.path(), "proc/irq/11/effective_affinity_list", "3\n");
    write(root.path(), "proc/77/comm", "irqbalance\n");
    let report = report(root.path(), "kernel");
    let found = untuned(&report);
    assert_eq!(found.iter().map(|finding| finding.subject).collect::<Vec<_>>(), ["isolated-cpus"]);
    assert!(found[0].fix[0].contains("fewer engine cores"));
}

#[test]
fn irqbalance_that_is_kept_away_is_fine() {
    let root = tuned();
    write(root.path(), "proc/77/comm", "irqbalance\n");
    write(root.path(), "etc/default/irqbalance", "# settings\nIRQBALANCE_BANNED_CPULIST=\"1-3\"\n");
    assert!(report(root.path(), "kernel").tuned);
    write(root.path(), "etc/default/irqbalance", "IRQBALANCE_BANNED_CPULIST=2\n");
    assert!(!report(root.path(), "kernel").tuned);
}

#[test]
fn an_empty_machine_is_survived() {
    let root = tempfile::tempdir().unwrap();
    for net in ["kernel", "af_xdp:eth1", "tap:tap0"] {
        assert!(!report(root.path(), net).tuned);
    }
}

#[test]
fn ways_to_the_network_are_parsed_or_refused() {
    assert_eq!(parse_net("kernel"), Ok(Net::Kernel));
    assert_eq!(parse_net("af_xdp:eth1"), Ok(Net::AfXdp("eth1".into())));
    assert_eq!(parse_net("tap:x"), Ok(Net::Tap("x".into())));
    for text in ["", "af_xdp", "af_xdp:", "tap:", "dpdk:0"] {
        assert!(parse_net(text).is_err(), "{text}");
    }
}

#[test]
fn the_json_has_these_fields() {
    let root = tuned();
    let json = serde_json::to_value(report(root.path(), "kernel")).unwrap();
    assert_eq!(json["tuned"], true);
    let first = json["findings"][0].as_object().unwrap();
    assert_eq!(first.keys().collect::<Vec<_>>(), ["fix", "found", "lost", "status", "subject"]);
    assert_eq!((&first["subject"], &first["status"]), (&"huge-pages".into(), &"fine".into()));
}
