package store

import (
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"

	"yakumo/model"
)

// The tables of the cloud. The claims of each say what is unique; the indexes, how rows
// are found. They are never assigned again.
var (
	Domains = Define("domain", func(r *model.Domain) string { return r.ID },
		Claims(func(r *model.Domain) []string { return []string{r.Name} }))

	Projects = Define("project", func(r *model.Project) string { return r.ID },
		Claims(func(r *model.Project) []string { return []string{r.DomainID + "," + r.Name} }),
		By("domain", func(r *model.Project) []string { return []string{r.DomainID} }),
		By("parent", func(r *model.Project) []string { return []string{r.ParentID} }),
		By("name", func(r *model.Project) []string { return []string{r.Name} }))

	Users = Define("user", func(r *model.User) string { return r.ID },
		Claims(func(r *model.User) []string { return []string{r.DomainID + "," + r.Name} }),
		By("domain", func(r *model.User) []string { return []string{r.DomainID} }),
		By("name", func(r *model.User) []string { return []string{r.Name} }))

	Groups = Define("user_group", func(r *model.Group) string { return r.ID },
		Claims(func(r *model.Group) []string { return []string{r.DomainID + "," + r.Name} }),
		By("domain", func(r *model.Group) []string { return []string{r.DomainID} }),
		By("name", func(r *model.Group) []string { return []string{r.Name} }),
		By("member", func(r *model.Group) []string { return r.Members }))

	Roles = Define("role", func(r *model.Role) string { return r.ID },
		Claims(func(r *model.Role) []string { return []string{r.DomainID + "," + r.Name} }),
		By("domain", func(r *model.Role) []string { return some(r.DomainID) }),
		By("name", func(r *model.Role) []string { return []string{r.Name} }))

	Assignments = Define("assignment", (*model.Assignment).Key,
		By("user", func(r *model.Assignment) []string { return some(r.UserID) }),
		By("group", func(r *model.Assignment) []string { return some(r.GroupID) }),
		By("project", func(r *model.Assignment) []string { return some(r.ProjectID) }),
		By("domain", func(r *model.Assignment) []string { return some(r.DomainID) }),
		By("role", func(r *model.Assignment) []string { return some(r.RoleID) }))

	// IdentityRecords' claims: a name is unique per collection and owner where the collection sets one in Body["_claim"].
	IdentityRecords = Define("identity_record", (*model.IdentityRecord).Key,
		Claims(func(r *model.IdentityRecord) []string {
			if c, ok := r.Body["_claim"].(string); ok && c != "" {
				return []string{r.Collection + "," + c}
			}
			return nil
		}),
		By("collection", func(r *model.IdentityRecord) []string { return []string{r.Collection} }),
		By("owner", func(r *model.IdentityRecord) []string { return some(r.OwnerID) }),
		By("parent", func(r *model.IdentityRecord) []string { return some(r.ParentID) }),
		By("peer", func(r *model.IdentityRecord) []string { return some(r.PeerID) }))

	Revocations = Define("revocation", func(r *model.Revocation) string { return r.AuditID })
	SigningKeys = Define("signing_key", func(r *model.SigningKey) string { return r.ID })

	Images = Define("image", func(r *model.Image) string { return r.ID },
		By("project", func(r *model.Image) []string { return []string{r.ProjectID} }),
		By("visibility", func(r *model.Image) []string { return []string{r.Visibility} }),
		By("blob", func(r *model.Image) []string { return some(r.BlobID) }),
		By("status", func(r *model.Image) []string { return []string{r.Status} }),
		// These sort newest first, so that a page of a list costs what it returns.
		By("newest", func(r *model.Image) []string { return []string{r.NewestFirst()} }),
		By("project_newest", func(r *model.Image) []string { return []string{r.ProjectID + "," + r.NewestFirst()} }),
		By("visibility_newest", func(r *model.Image) []string { return []string{r.Visibility + "," + r.NewestFirst()} }),
		By("member_newest", func(r *model.Image) []string {
			out := keysOf(r.Members)
			for i, project := range out {
				out[i] = project + "," + r.NewestFirst()
			}
			return out
		}))

	ImageUploads = Define("image_upload", func(r *model.ImageUpload) string { return r.ImageID },
		By("blob", func(r *model.ImageUpload) []string { return []string{r.BlobID} }))

	ImageTasks = Define("image_task", func(r *model.ImageTask) string { return r.ID },
		By("project", func(r *model.ImageTask) []string { return []string{r.ProjectID} }))

	Flavors = Define("flavor", func(r *model.Flavor) string { return r.ID },
		Claims(func(r *model.Flavor) []string { return []string{r.Name} }))

	KeyPairs = Define("keypair", (*model.KeyPair).Key,
		By("user", func(r *model.KeyPair) []string { return []string{r.UserID} }))

	Servers = Define("server", func(r *model.Server) string { return r.ID },
		By("token", func(r *model.Server) []string { return when(r.Token != "", r.ProjectID+","+r.Token) }),
		// project adds up what quotas limit: vCPUs and MiB of memory.
		Summed("project", func(r *model.Server) []string { return []string{r.ProjectID} }, func(r *model.Server, _ string) Amounts {
			vcpus, mib := r.Spent()
			return Amounts{vcpus, mib}
		}),
		// host finds what a host must know of: also what is on its way there, and what left it and may come back. It adds up
		// what they take of it: vCPUs, MiB of memory, GiB of disk.
		Summed("host", func(r *model.Server) []string {
			out := some(r.Host)
			if m := r.Move; m != nil {
				for _, h := range []model.ID{m.Source, m.Target} {
					if h != "" && h != r.Host {
						out = append(out, h)
					}
				}
			}
			return out
		}, func(r *model.Server, host string) Amounts {
			l := r.Taken(host)
			return Amounts{l.VCPUs, l.MemoryMiB, l.DiskGiB, l.PCPUs, l.PagesMiB[0], l.PagesMiB[1]}
		}),
		By("group", func(r *model.Server) []string { return some(r.GroupID) }),
		By("moving", func(r *model.Server) []string {
			if r.Move == nil {
				return nil
			}
			return []string{string(r.Move.Stage)}
		}),
		By("volume", func(r *model.Server) []string {
			out := make([]string, 0, len(r.Volumes))
			for _, v := range r.Volumes {
				out = append(out, v.VolumeID)
			}
			return out
		}),
		By("phase", func(r *model.Server) []string { return []string{string(r.Status.Phase)} }),
		By("task", func(r *model.Server) []string { return some(r.Status.Task) }),
		// image finds what must keep an image's bytes: a server's disk may be made of another than it is shown with.
		By("image", func(r *model.Server) []string {
			out := some(r.ImageID)
			if id := r.Image.ImageID; id != "" && id != r.ImageID {
				out = append(out, id)
			}
			if x := r.Rescue; x != nil && x.ImageID != "" && !slices.Contains(out, x.ImageID) {
				out = append(out, x.ImageID)
			}
			return out
		}),
		By("newest", func(r *model.Server) []string { return []string{r.NewestFirst()} }),
		By("project_newest", func(r *model.Server) []string { return []string{r.ProjectID + "," + r.NewestFirst()} }))

	// ServerUsages are what is measured of servers that are gone, for longer.
	ServerUsages = Define("server_usage", func(r *model.ServerUsage) string { return r.ServerID },
		By("project", func(r *model.ServerUsage) []string { return []string{r.ProjectID} }),
		By("ended", func(r *model.ServerUsage) []string { return []string{r.EndedKey()} }))

	// GoneServers are what is told of servers that are gone, for a while.
	GoneServers = Define("gone_server", func(r *model.Server) string { return r.ID },
		By("newest", func(r *model.Server) []string { return []string{r.NewestFirst()} }),
		By("project_newest", func(r *model.Server) []string { return []string{r.ProjectID + "," + r.NewestFirst()} }))

	Actions = Define("action", (*model.Action).Key,
		By("server", func(r *model.Action) []string { return []string{r.ServerID} }),
		By("request", func(r *model.Action) []string { return []string{r.ServerID + "," + r.RequestID} }))

	Migrations = Define("migration", func(r *model.Migration) string { return r.ID },
		Claims(func(r *model.Migration) []string { return []string{strconv.FormatInt(r.Number, 10)} }),
		By("newest", func(r *model.Migration) []string { return []string{fmt.Sprintf("%019d", math.MaxInt64-r.Number)} }), // the highest number first
		By("server", func(r *model.Migration) []string { return []string{r.ServerID} }))

	ServerGroups = Define("server_group", func(r *model.ServerGroup) string { return r.ID },
		Counted("project", func(r *model.ServerGroup) []string { return []string{r.ProjectID} }))

	Aggregates = Define("aggregate", func(r *model.Aggregate) string { return r.ID },
		Claims(func(r *model.Aggregate) []string {
			return []string{"name," + r.Name, "number," + strconv.FormatInt(r.Number, 10)}
		}),
		By("number", func(r *model.Aggregate) []string { return []string{strconv.FormatInt(r.Number, 10)} }),
		By("host", func(r *model.Aggregate) []string { return r.Hosts }))

	ConsoleTokens = Define("console_token", func(r *model.ConsoleToken) string { return r.Hash })

	Volumes = Define("volume", func(r *model.Volume) string { return r.ID },
		By("token", func(r *model.Volume) []string { return when(r.Token != "", r.ProjectID+","+r.Token) }),
		Counted("project", func(r *model.Volume) []string { return []string{r.ProjectID} }),
		// host adds up the GiB that local volumes take of it.
		Summed("host", func(r *model.Volume) []string { return r.Hosts() }, func(r *model.Volume, host string) Amounts {
			if !r.InAt(model.EngineLocal, host) {
				return Amounts{}
			}
			return Amounts{r.SizeGiB}
		}),
		By("state", func(r *model.Volume) []string { return []string{r.Status.State} }),
		By("type", func(r *model.Volume) []string {
			if c := r.Change; c != nil && c.TypeID != "" && c.TypeID != r.TypeID {
				return append(some(r.TypeID), c.TypeID)
			}
			if c := r.Relocation; c != nil && c.TypeID != "" && c.TypeID != r.TypeID {
				return append(some(r.TypeID), c.TypeID)
			}
			return some(r.TypeID)
		}),
		By("source", func(r *model.Volume) []string { return some(r.Source.VolumeID) }),
		// blob: bytes of an image that its host may still fetch.
		By("blob", func(r *model.Volume) []string {
			return when(r.Status.State == "creating" && r.Source.Image.BlobID != "", r.Source.Image.BlobID)
		}),
		By("backup", func(r *model.Volume) []string { return some(r.Filling().BackupID) }),
		By("upload", func(r *model.Volume) []string {
			out := make([]string, 0, len(r.Uploads))
			for _, b := range r.Uploads {
				out = append(out, b.ID)
			}
			return out
		}),
		By("snapshot", func(r *model.Volume) []string { return some(r.Source.SnapshotID) }),
		By("attachment", func(r *model.Volume) []string {
			out := make([]string, 0, len(r.Attachments))
			for _, a := range r.Attachments {
				out = append(out, a.ID)
			}
			return out
		}))

	VolumeSnapshots = Define("volume_snapshot", func(r *model.VolumeSnapshot) string { return r.ID },
		Counted("project", func(r *model.VolumeSnapshot) []string { return []string{r.ProjectID} }),
		By("volume", func(r *model.VolumeSnapshot) []string { return []string{r.VolumeID} }))

	VolumeBackups = Define("volume_backup", func(r *model.VolumeBackup) string { return r.ID },
		By("blob", func(r *model.VolumeBackup) []string { return some(r.BlobID) }),
		By("parent", func(r *model.VolumeBackup) []string { return some(r.ParentID) }),
		Counted("project", func(r *model.VolumeBackup) []string { return []string{r.ProjectID} }),
		By("volume", func(r *model.VolumeBackup) []string { return []string{r.VolumeID} }))

	// VolumeTypes: one may be the default.
	VolumeTypes = Define("volume_type", func(r *model.VolumeType) string { return r.ID },
		Claims(func(r *model.VolumeType) []string {
			out := []string{"name," + r.Name}
			if r.Default {
				out = append(out, "default")
			}
			return out
		}),
		By("qos", func(r *model.VolumeType) []string { return some(r.QoSID) }),
		By("name", func(r *model.VolumeType) []string { return []string{r.Name} }))

	VolumeQoS = Define("volume_qos", func(r *model.VolumeQoS) string { return r.ID },
		Claims(func(r *model.VolumeQoS) []string { return []string{r.Name} }),
		By("name", func(r *model.VolumeQoS) []string { return []string{r.Name} }))

	// VolumeTransfers: a volume is offered once.
	VolumeTransfers = Define("volume_transfer", func(r *model.VolumeTransfer) string { return r.ID },
		Claims(func(r *model.VolumeTransfer) []string { return []string{r.VolumeID} }),
		By("project", func(r *model.VolumeTransfer) []string { return []string{r.ProjectID} }),
		By("volume", func(r *model.VolumeTransfer) []string { return []string{r.VolumeID} }))

	// Networks claim their number, and what they take of a physical network.
	Networks = Define("network", func(r *model.Network) string { return r.ID },
		Claims(func(r *model.Network) []string {
			out := []string{VNIClaim(r.VNI)}
			if r.External && r.IsDefault {
				out = append(out, DefaultNetworkClaim)
			}
			switch r.Type {
			case model.NetworkVLAN:
				out = append(out, VLANClaim(r.PhysicalNetwork, r.VLAN))
			case model.NetworkFlat:
				out = append(out, FlatClaim(r.PhysicalNetwork))
			}
			return out
		}),
		By("qos", func(r *model.Network) []string { return some(r.QoSPolicyID) }),
		By("physical", func(r *model.Network) []string { return some(r.PhysicalNetwork) }),
		Counted("project", func(r *model.Network) []string { return []string{r.ProjectID} }),
		By("shared", (*model.Network).Targets),
		By("name", func(r *model.Network) []string { return []string{r.Name} }))

	Subnets = Define("subnet", func(r *model.Subnet) string { return r.ID },
		Counted("project", func(r *model.Subnet) []string { return []string{r.ProjectID} }),
		By("network", func(r *model.Subnet) []string { return []string{r.NetworkID} }),
		By("forming", func(r *model.Subnet) []string { return when(r.Forming, "yes") }),
		// pool sorts the subnets of a pool by their blocks.
		By("pool", func(r *model.Subnet) []string {
			return when(r.PoolID != "", r.PoolID+","+AddressOrder(r.CIDR.Addr()))
		}))

	// Ports claim their MAC in the network, each address in its subnet, and in the network what they hold of others.
	Ports = Define("port", func(r *model.Port) string { return r.ID },
		Claims(func(r *model.Port) []string {
			out := []string{"mac," + r.NetworkID + "," + r.MAC}
			for _, f := range r.FixedIPs {
				out = append(out, PortAddressClaim(f.SubnetID, f.Address.String()))
			}
			for _, h := range r.Held {
				out = append(out, HeldClaim(r.NetworkID, h.Address))
			}
			return out
		}),
		Counted("project", func(r *model.Port) []string { return []string{r.ProjectID} }),
		By("network", func(r *model.Port) []string { return []string{r.NetworkID} }),
		By("device", func(r *model.Port) []string { return some(r.DeviceID) }),
		By("next_host", func(r *model.Port) []string { return some(r.NextHost) }),
		Counted("host", func(r *model.Port) []string { return some(r.Host) }),
		By("network_owner", func(r *model.Port) []string { return some(r.NetworkOwner) }),
		By("mac", func(r *model.Port) []string { return []string{r.MAC} }),
		By("address", func(r *model.Port) []string {
			var out []string
			for _, f := range r.FixedIPs {
				out = append(out, f.Address.String())
			}
			return out
		}),
		By("subnet", func(r *model.Port) []string {
			var out []string
			for _, f := range r.FixedIPs {
				out = append(out, f.SubnetID)
			}
			return out
		}),
		By("group", func(r *model.Port) []string { return r.Groups }),
		By("qos", func(r *model.Port) []string { return some(r.QoSPolicyID) }),
		By("parent", func(r *model.Port) []string { return some(r.ParentID) }), // the subports of a trunk's parent
		// router_network finds the interfaces of routers in a network.
		By("router_network", func(r *model.Port) []string {
			return when(r.DeviceOwner == model.OwnerRouterInterface, r.NetworkID)
		}),
		// network_host sorts by host, so that the hosts of a network are found by seeking. It and host_group count
		// the host that is prepared for a port too.
		By("network_host", func(r *model.Port) []string {
			out := r.Hosts()
			for i, h := range out {
				out[i] = r.NetworkID + "," + h
			}
			return out
		}),
		By("host_group", func(r *model.Port) []string {
			var out []string
			for _, h := range r.Hosts() {
				for _, g := range r.Groups {
					out = append(out, h+","+g)
				}
			}
			return out
		}))

	SecurityGroups = Define("security_group", func(r *model.SecurityGroup) string { return r.ID },
		Claims(func(r *model.SecurityGroup) []string { return when(r.Default, "default,"+r.ProjectID) }),
		Counted("project", func(r *model.SecurityGroup) []string { return []string{r.ProjectID} }),
		By("shared", func(r *model.SecurityGroup) []string { return r.SharedWith }),
		By("name", func(r *model.SecurityGroup) []string { return []string{r.Name} }))

	// SecurityRules claim their meaning in the group: the same rule cannot be there twice.
	SecurityRules = Define("security_rule", func(r *model.SecurityRule) string { return r.ID },
		Claims(func(r *model.SecurityRule) []string { return []string{r.Meaning()} }),
		Counted("project", func(r *model.SecurityRule) []string { return []string{r.ProjectID} }),
		By("group", func(r *model.SecurityRule) []string { return []string{r.GroupID} }),
		By("remote", func(r *model.SecurityRule) []string { return some(r.RemoteGroupID) }),
		By("address_group", func(r *model.SecurityRule) []string { return some(r.AddressGroupID) }))

	DefaultRules = Define("default_rule", func(r *model.DefaultRule) string { return r.ID },
		Claims(func(r *model.DefaultRule) []string { return when(!r.Gone, r.Meaning()) }))

	AddressGroups = Define("address_group", func(r *model.AddressGroup) string { return r.ID },
		Counted("project", func(r *model.AddressGroup) []string { return []string{r.ProjectID} }),
		By("shared", func(r *model.AddressGroup) []string { return r.SharedWith }))

	AddressScopes = Define("address_scope", func(r *model.AddressScope) string { return r.ID },
		Counted("project", func(r *model.AddressScope) []string { return []string{r.ProjectID} }),
		By("shared", func(r *model.AddressScope) []string { return r.SharedWith }))

	// SubnetPools: one may be the default of its IP version.
	SubnetPools = Define("subnet_pool", func(r *model.SubnetPool) string { return r.ID },
		Claims(func(r *model.SubnetPool) []string { return when(r.IsDefault, "default,"+strconv.Itoa(r.IPVersion)) }),
		Counted("project", func(r *model.SubnetPool) []string { return []string{r.ProjectID} }),
		By("shared", func(r *model.SubnetPool) []string { return r.SharedWith }),
		By("scope", func(r *model.SubnetPool) []string { return some(r.AddressScopeID) }))

	AutoTopologies = Define("auto_topology", func(r *model.AutoTopology) string { return r.ProjectID })

	// RBACPolicies: an object is shared with a target once. "object" is for the end of the object.
	RBACPolicies = Define("rbac_policy", func(r *model.RBACPolicy) string { return r.ID },
		Claims(func(r *model.RBACPolicy) []string { return []string{r.Meaning()} }),
		Counted("project", func(r *model.RBACPolicy) []string { return []string{r.ProjectID} }),
		By("object", func(r *model.RBACPolicy) []string { return []string{r.ObjectID} }))

	// Routers claim their tunnel identifier; who picks one looks at the claim of networks too.
	Routers = Define("router", func(r *model.Router) string { return r.ID },
		Claims(func(r *model.Router) []string { return when(r.VNI != 0, VNIClaim(r.VNI)) }),
		Counted("project", func(r *model.Router) []string { return []string{r.ProjectID} }),
		By("name", func(r *model.Router) []string { return []string{r.Name} }),
		// network is the external network of the gateway.
		By("network", func(r *model.Router) []string {
			if r.Gateway == nil {
				return nil
			}
			return []string{r.Gateway.NetworkID}
		}),
		By("qos", func(r *model.Router) []string {
			if r.Gateway == nil {
				return nil
			}
			return some(r.Gateway.QoSPolicyID)
		}),
		By("gateway_host", func(r *model.Router) []string { return r.Status.GatewayHosts }))

	// FloatingIPs claim the address inside that they stand for: it has one floating IP in each
	// external network. The address outside is claimed by their port.
	// InternetGateways claim the router that they are for.
	InternetGateways = Define("internet_gateway", func(r *model.InternetGateway) string { return r.ID },
		Claims(func(r *model.InternetGateway) []string { return when(r.RouterID != "", "router,"+r.RouterID) }),
		Counted("project", func(r *model.InternetGateway) []string { return []string{r.ProjectID} }))

	FloatingIPs = Define("floating_ip", func(r *model.FloatingIP) string { return r.ID },
		Claims(func(r *model.FloatingIP) []string {
			return when(r.PortID != "", "inside,"+r.NetworkID+","+r.PortID+","+r.FixedAddress.String())
		}),
		Counted("project", func(r *model.FloatingIP) []string { return []string{r.ProjectID} }),
		By("network", func(r *model.FloatingIP) []string { return []string{r.NetworkID} }),
		By("address", func(r *model.FloatingIP) []string { return []string{r.Address.String()} }),
		By("port", func(r *model.FloatingIP) []string { return some(r.PortID) }),
		By("qos", func(r *model.FloatingIP) []string { return some(r.QoSPolicyID) }),
		By("router", func(r *model.FloatingIP) []string { return some(r.RouterID) }))

	// PortForwardings claim the first port of both ranges; that ranges do not overlap is
	// looked at by who writes them, in the order that the floating IP's row gives.
	PortForwardings = Define("port_forwarding", func(r *model.PortForwarding) string { return r.ID },
		Claims(func(r *model.PortForwarding) []string {
			return []string{
				"outside," + r.FloatingIPID + "," + r.Protocol + "," + strconv.Itoa(r.ExternalPort),
				"inside," + r.PortID + "," + r.InternalAddress.String() + "," + r.Protocol + "," + strconv.Itoa(r.InternalPort),
			}
		}),
		By("project", func(r *model.PortForwarding) []string { return []string{r.ProjectID} }),
		By("floating", func(r *model.PortForwarding) []string { return []string{r.FloatingIPID} }),
		By("port", func(r *model.PortForwarding) []string { return []string{r.PortID} }),
		By("router", func(r *model.PortForwarding) []string { return []string{r.RouterID} }))

	QoSPolicies = Define("qos_policy", func(r *model.QoSPolicy) string { return r.ID },
		Claims(func(r *model.QoSPolicy) []string { return when(r.Default, "default,"+r.ProjectID) }),
		Counted("project", func(r *model.QoSPolicy) []string { return []string{r.ProjectID} }),
		By("shared", func(r *model.QoSPolicy) []string { return r.SharedWith }),
		By("minimum", func(r *model.QoSPolicy) []string { return when(r.Promises(), "yes") }), // those that placement looks at
		By("rule", func(r *model.QoSPolicy) []string {
			out := make([]string, 0, len(r.Rules))
			for _, x := range r.Rules {
				out = append(out, x.ID)
			}
			return out
		}))

	// Trunks: the rows of their ports name them, so that no port is of two.
	Trunks = Define("trunk", func(r *model.Trunk) string { return r.ID },
		Counted("project", func(r *model.Trunk) []string { return []string{r.ProjectID} }),
		By("port", func(r *model.Trunk) []string { return []string{r.PortID} }))

	// TapServices claim their number in tunnels as networks and routers do.
	TapServices = Define("tap_service", func(r *model.TapService) string { return r.ID },
		Claims(func(r *model.TapService) []string { return []string{VNIClaim(r.VNI)} }),
		Counted("project", func(r *model.TapService) []string { return []string{r.ProjectID} }),
		By("port", func(r *model.TapService) []string { return []string{r.PortID} }))

	TapFlows = Define("tap_flow", func(r *model.TapFlow) string { return r.ID },
		Claims(func(r *model.TapFlow) []string { return []string{r.ServiceID + "," + r.SourcePort + "," + r.Direction} }),
		Counted("project", func(r *model.TapFlow) []string { return []string{r.ProjectID} }),
		By("service", func(r *model.TapFlow) []string { return []string{r.ServiceID} }),
		By("source", func(r *model.TapFlow) []string { return []string{r.SourcePort} }))

	Environments = Define("environment", func(r *model.Environment) string { return r.ProjectID })

	Quotas = Define("quota", (*model.Quota).Key,
		By("service", func(r *model.Quota) []string { return []string{r.Service} }))

	Hosts = Define("host", func(r *model.Host) string { return r.ID },
		Claims(func(r *model.Host) []string { return []string{r.Name} }),
		By("name", func(r *model.Host) []string { return []string{r.Name} }))

	Heartbeats = Define("heartbeat", func(r *model.Heartbeat) string { return r.HostID })
	Told       = Define("host_told", func(r *model.HostTold) string { return r.HostID })
	JoinTokens = Define("join_token", func(r *model.JoinToken) string { return r.ID })
	Settings   = Define("setting", func(r *model.Setting) string { return r.Name })
)

// Tables gives every table of the cloud.
func Tables() []AnyTable {
	return []AnyTable{Domains, Projects, Users, Groups, Roles, Assignments, IdentityRecords, Revocations, SigningKeys,
		Images, ImageUploads, ImageTasks, Flavors, KeyPairs, Servers, GoneServers, ServerUsages, Actions, Migrations, ServerGroups, Aggregates, ConsoleTokens,
		Volumes, VolumeSnapshots, VolumeBackups, VolumeTypes, VolumeQoS, VolumeTransfers, Networks, Subnets, Ports, SecurityGroups, SecurityRules,
		Routers, InternetGateways, FloatingIPs, PortForwardings, QoSPolicies, Trunks, TapServices, TapFlows,
		DefaultRules, AddressGroups, AddressScopes, SubnetPools, RBACPolicies, AutoTopologies, Environments, Quotas, Hosts, Heartbeats, Told, JoinTokens, Settings}
}

// HostUp tells whether a host is alive: its heartbeat is there and nobody forced it down.
func HostUp(r Reader, h *model.Host) bool {
	_, alive := Heartbeats.Get(r, h.ID)
	return alive && !h.ForcedDown
}

// HostGuard is the guard that placing a server on a host marks, and removing the host guards.
func HostGuard(host string) string { return "host," + host }

// VNIClaim is the claim of a tunnel identifier, of networks and of routers.
func VNIClaim(vni uint32) string { return "vni," + strconv.FormatUint(uint64(vni), 10) }

// DefaultNetworkClaim is the claim of the external network that is the default.
const DefaultNetworkClaim = "default"

// AddressOrder is a text of the address that sorts as the address does among those of its IP version.
func AddressOrder(a netip.Addr) string {
	b := a.As16()
	return hex.EncodeToString(b[:])
}

// PortAddressClaim is the claim of an address in a subnet.
func PortAddressClaim(subnet, addr string) string { return "ip," + subnet + "," + addr }

// HeldClaim is the claim of an address that a port of the network holds by an allowed address pair.
func HeldClaim(network model.ID, addr netip.Addr) string {
	return "held," + network + "," + addr.String()
}

// VLANClaim is the claim of a VLAN of a physical network.
func VLANClaim(physical string, vlan uint16) string {
	return "vlan," + strconv.FormatUint(uint64(vlan), 10) + "," + physical
}

// FlatClaim is the claim of a physical network's untagged frames.
func FlatClaim(physical string) string { return "flat," + physical }

func some(s string) []string { return when(s != "", s) }

func when(ok bool, s string) []string {
	if !ok {
		return nil
	}
	return []string{s}
}

func keysOf[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}
