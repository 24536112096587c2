// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two Ethernet interfaces, phc0 and phc1, back to back, with a PTP hardware clock: what one sends the other receives,
 * timestamped by that clock as a NIC does it.
 *
 * The clock is CLOCK_MONOTONIC_RAW with an offset and a rate that user space sets (clock_settime, clock_adjtime).
 * Received frames are timestamped where the rx filter of SIOCSHWTSTAMP says so; packet sockets get the timestamp as
 * skb's hwtstamp, XDP programs bound to the device by bpf_xdp_metadata_rx_timestamp.
 *
 * So that a test knows what is right, frames of Ethernet type 0x88b5 are given a `struct phc_truth` behind the header:
 * CLOCK_REALTIME of the same moment as the timestamp, by one snapshot of all clocks.
 */
#include <linux/bpf.h>
#include <linux/bpf_trace.h>
#include <linux/etherdevice.h>
#include <linux/ethtool.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/net_tstamp.h>
#include <linux/netdevice.h>
#include <linux/ptp_clock_kernel.h>
#include <linux/timekeeping.h>
#include <linux/udp.h>
#include <net/xdp.h>

#define PHC_TYPE 0x88b5
#define PHC_MAGIC 0x50484354 /* PHCT */
#define PHC_QUEUE 4096
#define PTP_TYPE 0x88f7
#define PHC_MAX_MTU 3400
#define PHC_PAGE_ROOM (PAGE_SIZE - XDP_PACKET_HEADROOM - SKB_DATA_ALIGN(sizeof(struct skb_shared_info)))

static unsigned int leave_out;
module_param(leave_out, uint, 0644);
MODULE_PARM_DESC(leave_out, "Every n-th frame gets no timestamp; 0: each gets one");

static bool timestamp_nothing;
module_param(timestamp_nothing, bool, 0644);
MODULE_PARM_DESC(timestamp_nothing, "Accept every setting, and timestamp no frame");

static bool ptp_only;
module_param(ptp_only, bool, 0444);
MODULE_PARM_DESC(ptp_only, "Know rx filters for PTP only");

static bool no_metadata;
module_param(no_metadata, bool, 0444);
MODULE_PARM_DESC(no_metadata, "Leave XDP programs no room before frames, and have no functions for them");

/* Big endian; behind the Ethernet header. */
struct phc_truth {
	__be32 magic;
	__be32 timestamped;
	__be64 realtime_ns;
	__be64 clock_ns;
} __packed;

struct phc_clock {
	struct ptp_clock_info info;
	struct ptp_clock *ptp;
	spinlock_t lock;
	u64 raw_ns;	/* CLOCK_MONOTONIC_RAW at which ... */
	s64 clock_ns;	/* ... the clock showed this */
	s64 scaled_ppm;
};

struct phc_port {
	struct net_device *dev;
	struct net_device *peer;
	struct napi_struct napi;
	struct sk_buff_head queue;
	struct xdp_rxq_info rxq;
	struct bpf_prog __rcu *prog;
	int rx_filter;
	unsigned int frames;
};

/* Of a frame on its way, in skb->cb. */
struct phc_cb {
	s64 clock_ns;
	bool timestamped;
};

struct phc_xdp {
	struct xdp_buff xdp;	/* first: kernel functions get a pointer to it */
	s64 clock_ns;
	bool timestamped;
};

static struct phc_clock phc_clock;
static struct net_device *phc_devices[2];

static s64 phc_elapsed(const struct phc_clock *clock, u64 raw_ns)
{
	u64 since = raw_ns - clock->raw_ns;
	u64 rate = clock->scaled_ppm < 0 ? -clock->scaled_ppm : clock->scaled_ppm;
	u64 gained = mul_u64_u64_div_u64(since, rate, 65536ULL * 1000000);

	return clock->scaled_ppm < 0 ? since - gained : since + gained;
}

static s64 phc_at(struct phc_clock *clock, u64 raw_ns)
{
	unsigned long flags;
	s64 now;

	spin_lock_irqsave(&clock->lock, flags);
	/* Another CPU may have set the clock a moment later than this one looked. */
	if ((s64)(raw_ns - clock->raw_ns) < 0)
		raw_ns = clock->raw_ns;
	now = clock->clock_ns + phc_elapsed(clock, raw_ns);
	spin_unlock_irqrestore(&clock->lock, flags);
	return now;
}

static int phc_gettimex64(struct ptp_clock_info *info, struct timespec64 *ts, struct ptp_system_timestamp *sts)
{
	struct phc_clock *clock = container_of(info, struct phc_clock, info);
	u64 raw_ns;

	ptp_read_system_prets(sts);
	raw_ns = ktime_get_raw_ns();
	ptp_read_system_postts(sts);
	*ts = ns_to_timespec64(phc_at(clock, raw_ns));
	return 0;
}

static void phc_rebase(struct phc_clock *clock)
{
	u64 raw_ns = ktime_get_raw_ns();

	clock->clock_ns += phc_elapsed(clock, raw_ns);
	clock->raw_ns = raw_ns;
}

static int phc_settime64(struct ptp_clock_info *info, const struct timespec64 *ts)
{
	struct phc_clock *clock = container_of(info, struct phc_clock, info);
	unsigned long flags;

	spin_lock_irqsave(&clock->lock, flags);
	clock->raw_ns = ktime_get_raw_ns();
	clock->clock_ns = timespec64_to_ns(ts);
	spin_unlock_irqrestore(&clock->lock, flags);
	return 0;
}

static int phc_adjtime(struct ptp_clock_info *info, s64 delta_ns)
{
	struct phc_clock *clock = container_of(info, struct phc_clock, info);
	unsigned long flags;

	spin_lock_irqsave(&clock->lock, flags);
	phc_rebase(clock);
	clock->clock_ns += delta_ns;
	spin_unlock_irqrestore(&clock->lock, flags);
	return 0;
}

static int phc_adjfine(struct ptp_clock_info *info, long scaled_ppm)
{
	struct phc_clock *clock = container_of(info, struct phc_clock, info);
	unsigned long flags;

	spin_lock_irqsave(&clock->lock, flags);
	phc_rebase(clock);
	clock->scaled_ppm = scaled_ppm;
	spin_unlock_irqrestore(&clock->lock, flags);
	return 0;
}

static bool phc_is_ptp(const struct sk_buff *skb)
{
	const struct ethhdr *eth = (const struct ethhdr *)skb->data;
	const struct iphdr *ip = (const struct iphdr *)(eth + 1);
	const struct udphdr *udp;

	if (skb_headlen(skb) < ETH_HLEN)
		return false;
	if (eth->h_proto == htons(PTP_TYPE))
		return true;
	if (eth->h_proto != htons(ETH_P_IP) || skb_headlen(skb) < ETH_HLEN + sizeof(*ip) + sizeof(*udp))
		return false;
	udp = (const struct udphdr *)((const u8 *)ip + 4 * ip->ihl);
	return ip->protocol == IPPROTO_UDP && skb_headlen(skb) >= ETH_HLEN + 4 * ip->ihl + sizeof(*udp) &&
	       udp->dest == htons(319);
}

/* The moment of receipt. */
static void phc_timestamp(struct phc_port *to, struct sk_buff *skb)
{
	struct phc_cb *cb = (struct phc_cb *)skb->cb;
	struct system_time_snapshot now;
	struct phc_truth *truth;

	ktime_get_snapshot_id(CLOCK_REALTIME, &now);
	cb->clock_ns = phc_at(&phc_clock, ktime_to_ns(now.monoraw));
	cb->timestamped = to->rx_filter == HWTSTAMP_FILTER_ALL ||
		      (to->rx_filter != HWTSTAMP_FILTER_NONE && phc_is_ptp(skb));
	to->frames++;
	if (READ_ONCE(timestamp_nothing) || (READ_ONCE(leave_out) && to->frames % READ_ONCE(leave_out) == 0))
		cb->timestamped = false;
	if (skb->len < ETH_HLEN + sizeof(*truth) || ((struct ethhdr *)skb->data)->h_proto != htons(PHC_TYPE) ||
	    skb_ensure_writable(skb, ETH_HLEN + sizeof(*truth)))
		return;
	truth = (struct phc_truth *)(skb->data + ETH_HLEN);
	truth->magic = htonl(PHC_MAGIC);
	truth->timestamped = htonl(cb->timestamped);
	truth->realtime_ns = cpu_to_be64(ktime_to_ns(now.systime));
	truth->clock_ns = cpu_to_be64(cb->clock_ns);
}

static netdev_tx_t phc_xmit(struct sk_buff *skb, struct net_device *dev)
{
	struct phc_port *port = netdev_priv(dev);
	struct phc_port *to = netdev_priv(port->peer);
	unsigned int length = skb->len;

	if (!netif_running(port->peer) || skb_queue_len_lockless(&to->queue) >= PHC_QUEUE || skb_linearize(skb)) {
		dev_core_stats_tx_dropped_inc(dev);
		dev_kfree_skb_any(skb);
		return NETDEV_TX_OK;
	}
	skb_orphan(skb);
	skb_dst_drop(skb);
	nf_reset_ct(skb);
	phc_timestamp(to, skb);
	dev_sw_netstats_tx_add(dev, 1, length);
	skb_queue_tail(&to->queue, skb);
	napi_schedule(&to->napi);
	return NETDEV_TX_OK;
}

static void phc_pass(struct phc_port *port, struct sk_buff *skb, s64 clock_ns, bool timestamped)
{
	skb_scrub_packet(skb, true);
	skb->protocol = eth_type_trans(skb, port->dev);
	skb->ip_summed = CHECKSUM_UNNECESSARY;
	memset(skb_hwtstamps(skb), 0, sizeof(*skb_hwtstamps(skb)));
	if (timestamped)
		skb_hwtstamps(skb)->hwtstamp = ns_to_ktime(clock_ns);
	dev_sw_netstats_rx_add(port->dev, skb->len + ETH_HLEN);
	netif_receive_skb(skb);
}

/* Run the program on a copy in a page of its own, as a NIC's ring has it; true where frames were redirected. */
static bool phc_run(struct phc_port *port, struct bpf_prog *prog, struct sk_buff *skb)
{
	struct phc_cb *cb = (struct phc_cb *)skb->cb;
	struct phc_xdp here = { .clock_ns = cb->clock_ns, .timestamped = cb->timestamped };
	struct xdp_buff *xdp = &here.xdp;
	struct page *page;
	struct sk_buff *passed;
	bool redirected = false;
	u32 verdict;

	page = skb->len <= PHC_PAGE_ROOM ? dev_alloc_page() : NULL;
	if (!page) {
		dev_core_stats_rx_dropped_inc(port->dev);
		goto out;
	}
	xdp_init_buff(xdp, PAGE_SIZE, &port->rxq);
	xdp_prepare_buff(xdp, page_address(page), XDP_PACKET_HEADROOM, skb->len, !no_metadata);
	skb_copy_bits(skb, 0, xdp->data, skb->len);
	verdict = bpf_prog_run_xdp(prog, xdp);
	switch (verdict) {
	case XDP_PASS:
		passed = napi_alloc_skb(&port->napi, xdp->data_end - xdp->data);
		if (passed) {
			skb_put_data(passed, xdp->data, xdp->data_end - xdp->data);
			phc_pass(port, passed, here.clock_ns, here.timestamped);
		}
		put_page(page);
		break;
	case XDP_REDIRECT:
		dev_sw_netstats_rx_add(port->dev, skb->len);
		if (xdp_do_redirect(port->dev, xdp, prog)) {
			dev_core_stats_rx_dropped_inc(port->dev);
			put_page(page);
		}
		redirected = true;
		break;
	default:
		bpf_warn_invalid_xdp_action(port->dev, prog, verdict);
		fallthrough;
	case XDP_ABORTED:
		trace_xdp_exception(port->dev, prog, verdict);
		fallthrough;
	case XDP_DROP:
		put_page(page);
		break;
	}
out:
	consume_skb(skb);
	return redirected;
}

static int phc_poll(struct napi_struct *napi, int budget)
{
	struct phc_port *port = container_of(napi, struct phc_port, napi);
	struct bpf_prog *prog;
	bool redirected = false;
	int done = 0;
	struct sk_buff *skb;

	rcu_read_lock();
	prog = rcu_dereference(port->prog);
	while (done < budget && (skb = skb_dequeue(&port->queue))) {
		struct phc_cb *cb = (struct phc_cb *)skb->cb;

		if (prog)
			redirected |= phc_run(port, prog, skb);
		else
			phc_pass(port, skb, cb->clock_ns, cb->timestamped);
		done++;
	}
	rcu_read_unlock();
	if (redirected)
		xdp_do_flush();
	if (done < budget && napi_complete_done(napi, done) && !skb_queue_empty(&port->queue))
		napi_schedule(napi);
	return done;
}

static int phc_open(struct net_device *dev)
{
	struct phc_port *port = netdev_priv(dev);
	int error;

	error = xdp_rxq_info_reg(&port->rxq, dev, 0, port->napi.napi_id);
	if (error)
		return error;
	error = xdp_rxq_info_reg_mem_model(&port->rxq, MEM_TYPE_PAGE_SHARED, NULL);
	if (error) {
		xdp_rxq_info_unreg(&port->rxq);
		return error;
	}
	napi_enable(&port->napi);
	netif_carrier_on(dev);
	netif_start_queue(dev);
	return 0;
}

static int phc_stop(struct net_device *dev)
{
	struct phc_port *port = netdev_priv(dev);

	netif_stop_queue(dev);
	napi_disable(&port->napi);
	skb_queue_purge(&port->queue);
	xdp_rxq_info_unreg(&port->rxq);
	return 0;
}

static int phc_bpf(struct net_device *dev, struct netdev_bpf *bpf)
{
	struct phc_port *port = netdev_priv(dev);
	struct bpf_prog *old;

	if (bpf->command != XDP_SETUP_PROG)
		return -EINVAL;
	old = rtnl_dereference(port->prog);
	rcu_assign_pointer(port->prog, bpf->prog);
	synchronize_net();
	if (old)
		bpf_prog_put(old);
	return 0;
}

static int phc_hwtstamp_get(struct net_device *dev, struct kernel_hwtstamp_config *config)
{
	struct phc_port *port = netdev_priv(dev);

	config->flags = 0;
	config->tx_type = HWTSTAMP_TX_OFF;
	config->rx_filter = port->rx_filter;
	return 0;
}

static int phc_hwtstamp_set(struct net_device *dev, struct kernel_hwtstamp_config *config,
			    struct netlink_ext_ack *extack)
{
	struct phc_port *port = netdev_priv(dev);

	if (config->tx_type != HWTSTAMP_TX_OFF)
		return -ERANGE;
	switch (config->rx_filter) {
	case HWTSTAMP_FILTER_NONE:
		break;
	case HWTSTAMP_FILTER_ALL:
		if (ptp_only)
			return -ERANGE;
		break;
	case HWTSTAMP_FILTER_PTP_V2_L4_EVENT:
	case HWTSTAMP_FILTER_PTP_V2_L2_EVENT:
	case HWTSTAMP_FILTER_PTP_V2_EVENT:
		config->rx_filter = HWTSTAMP_FILTER_PTP_V2_EVENT;
		break;
	default:
		return -ERANGE;
	}
	port->rx_filter = config->rx_filter;
	return 0;
}

static const struct net_device_ops phc_netdev_ops = {
	.ndo_open = phc_open,
	.ndo_stop = phc_stop,
	.ndo_start_xmit = phc_xmit,
	.ndo_bpf = phc_bpf,
	.ndo_hwtstamp_get = phc_hwtstamp_get,
	.ndo_hwtstamp_set = phc_hwtstamp_set,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
};

static void phc_get_drvinfo(struct net_device *dev, struct ethtool_drvinfo *info)
{
	strscpy(info->driver, KBUILD_MODNAME, sizeof(info->driver));
}

static int phc_get_ts_info(struct net_device *dev, struct kernel_ethtool_ts_info *info)
{
	info->so_timestamping = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE |
				SOF_TIMESTAMPING_RX_HARDWARE | SOF_TIMESTAMPING_RAW_HARDWARE;
	info->phc_index = ptp_clock_index(phc_clock.ptp);
	info->tx_types = BIT(HWTSTAMP_TX_OFF);
	info->rx_filters = BIT(HWTSTAMP_FILTER_NONE) | BIT(HWTSTAMP_FILTER_PTP_V2_L4_EVENT) |
			   BIT(HWTSTAMP_FILTER_PTP_V2_L2_EVENT) | BIT(HWTSTAMP_FILTER_PTP_V2_EVENT);
	if (!ptp_only)
		info->rx_filters |= BIT(HWTSTAMP_FILTER_ALL);
	return 0;
}

static const struct ethtool_ops phc_ethtool_ops = {
	.get_drvinfo = phc_get_drvinfo,
	.get_link = ethtool_op_get_link,
	.get_ts_info = phc_get_ts_info,
};

static int phc_xmo_rx_timestamp(const struct xdp_md *context, u64 *timestamp)
{
	const struct phc_xdp *here = (const void *)context;

	if (!here->timestamped)
		return -ENODATA;
	*timestamp = here->clock_ns;
	return 0;
}

static const struct xdp_metadata_ops phc_metadata_ops = {
	.xmo_rx_timestamp = phc_xmo_rx_timestamp,
};

static void phc_setup(struct net_device *dev)
{
	struct phc_port *port = netdev_priv(dev);

	ether_setup(dev);
	dev->max_mtu = PHC_MAX_MTU;
	dev->netdev_ops = &phc_netdev_ops;
	dev->ethtool_ops = &phc_ethtool_ops;
	dev->pcpu_stat_type = NETDEV_PCPU_STAT_TSTATS;
	dev->needs_free_netdev = true;
	dev->xdp_features = NETDEV_XDP_ACT_BASIC | NETDEV_XDP_ACT_REDIRECT;
	if (!no_metadata)
		dev->xdp_metadata_ops = &phc_metadata_ops;
	port->dev = dev;
	port->rx_filter = HWTSTAMP_FILTER_NONE;
	skb_queue_head_init(&port->queue);
}

static int __init phc_make_clock(void)
{
	spin_lock_init(&phc_clock.lock);
	phc_clock.raw_ns = ktime_get_raw_ns();
	phc_clock.clock_ns = ktime_get_real_ns();
	phc_clock.info = (struct ptp_clock_info) {
		.owner = THIS_MODULE,
		.name = KBUILD_MODNAME,
		.max_adj = 2000000000,
		.gettimex64 = phc_gettimex64,
		.settime64 = phc_settime64,
		.adjtime = phc_adjtime,
		.adjfine = phc_adjfine,
	};
	phc_clock.ptp = ptp_clock_register(&phc_clock.info, NULL);
	return IS_ERR_OR_NULL(phc_clock.ptp) ? -ENODEV : 0;
}

static void phc_remove(void)
{
	int number;

	for (number = 0; number < 2; number++)
		if (phc_devices[number])
			unregister_netdev(phc_devices[number]);
	ptp_clock_unregister(phc_clock.ptp);
}

static int __init phc_init(void)
{
	struct phc_port *ports[2];
	int error, number;

	error = phc_make_clock();
	if (error)
		return error;
	for (number = 0; number < 2; number++) {
		struct net_device *dev = alloc_netdev(sizeof(struct phc_port), "phc%d", NET_NAME_ENUM, phc_setup);

		if (!dev) {
			phc_remove();
			return -ENOMEM;
		}
		eth_hw_addr_random(dev);
		ports[number] = netdev_priv(dev);
		netif_napi_add(dev, &ports[number]->napi, phc_poll);
		netif_carrier_off(dev);
		error = register_netdev(dev);
		if (error) {
			free_netdev(dev);
			phc_remove();
			return error;
		}
		phc_devices[number] = dev;
	}
	ports[0]->peer = phc_devices[1];
	ports[1]->peer = phc_devices[0];
	return 0;
}

static void __exit phc_exit(void)
{
	phc_remove();
}

module_init(phc_init);
module_exit(phc_exit);
MODULE_DESCRIPTION("A pair of Ethernet interfaces with a PTP hardware clock, for tests");
MODULE_LICENSE("GPL");
